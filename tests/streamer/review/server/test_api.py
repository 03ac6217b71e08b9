"""The HTTP API: what it gives, what it does, and how fast those who listen hear of it."""

import contextlib
import json
import threading
import time
from dataclasses import replace

import cv2
import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the review's server needs the package fastapi")
pytest.importorskip("uvicorn", reason="the review's server needs the package uvicorn")

from streamer.dashboard.palette import class_colour
from streamer.protocol.messages import decode
from streamer.review.desk import CellView
from streamer.review.server.events import merged
from streamer.review.server.keys import KEYS, RESERVED, choices
from streamer.review.server.reading import best_view
from streamer.run.session import picture_bounds
from tests.streamer.review.server.fake_desk import (
    CLASSES,
    SESSION,
    SUBCLASSES,
    FakeDesk,
    FakeFields,
    make_cells,
)
from tests.streamer.review.server.live_server import served

LATEST_S = 0.1
"""A correction must have reached who listens by then."""


@pytest.fixture
def desk():
    desk = FakeDesk(make_cells(60))
    yield desk
    desk.close()


@pytest.fixture
def server(desk):
    with served(desk, FakeFields()) as server:
        yield server


def refused(server, path, **body):
    answer = server.client.post(f"/api/v1/{path}", json=body)
    return answer.status_code, answer.json()["code"]


def refused_get(server, path):
    answer = server.client.get(f"/api/v1/{path}")
    return answer.status_code, answer.json()["code"]


class Listener:
    """Reads the event stream on a thread of its own."""

    def __init__(self, server, **query):
        self.events, self.times = [], []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(server, query), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _read(self, server, query):
        stream = server.client.stream("GET", "/api/v1/events", params=query, timeout=None)
        with contextlib.suppress(httpx.RemoteProtocolError), stream as answer:  # the server ends before the stream
            assert answer.headers["content-type"].startswith("text/event-stream")
            name = None
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    self.times.append(time.monotonic())
                    self.events.append((name, json.loads(line[6:])))
                    self._ready.set()

    def wait_for(self, count):
        until = time.monotonic() + 10
        while len(self.events) < count and time.monotonic() < until:
            time.sleep(0.002)
        assert len(self.events) >= count


def test_the_newest_differential_is_the_message_itself(server, desk):
    answer = server.client.get("/api/v1/differential")
    assert decode(answer.content) == desk.snapshot(SESSION).differential


def test_cells_are_named_as_their_messages_name_them(server, desk):
    cells = server.get("cells")
    assert [cell["cell_id"] for cell in cells] == list(range(60))
    record, cell = desk.snapshot(SESSION).cells[7], cells[7]
    assert (cell["class"], cell["subclass"], cell["top_class"]) == (
        record.class_name,
        record.subclass,
        record.top_class,
    )
    assert cell["class_probabilities"] == {name: round(value, 4) for name, value in record.probabilities.items()}
    assert cell["word"] is None


def test_a_class_an_undo_and_a_signature(server):
    server.post("cells/3/class", **{"class": "monocyte"})
    cell = server.get("cells")[3]
    assert (cell["class"], cell["word"]["kind"], cell["word"]["by"]) == ("monocyte", "corrected", "AB")
    server.post("undo")
    assert server.get("cells")[3]["word"] is None
    signed = server.post("sign", reviewer="CD")["signature"]
    assert signed["by"] == "CD"
    assert server.get("differential")["review"]["state"] == "signed"
    assert refused(server, "cells/3/class", **{"class": "monocyte"}) == (409, "signed")
    assert server.get("signatures")[0]["signed"]["signed_by"] == "CD"
    server.post("amend", reason="one more look")
    server.post("cells/3/class", **{"class": "monocyte"})


def test_several_cells_are_one_change(server):
    server.post("cells/class", cell_ids=[1, 2, 3], **{"class": "immature granulocyte", "subclass": "myelocyte"})
    assert {cell["subclass"] for cell in server.get("cells")[1:4]} == {"myelocyte"}
    server.post("undo")
    assert "myelocyte" not in {cell["subclass"] for cell in server.get("cells")}
    server.post("cells/confirm", cell_ids=list(range(20)))
    assert sum(cell["word"] is not None for cell in server.get("cells")) == 20


@pytest.fixture
def without_picture():
    """A desk whose cell 7 was published with none."""
    cells = make_cells(60)
    desk = FakeDesk([replace(cell, has_picture=cell.cell_id != 7) for cell in cells])
    yield desk
    desk.close()


def test_a_cell_that_was_published_without_a_picture_is_cut_out_of_a_frame(without_picture):
    with served(without_picture, FakeFields()) as server:
        cell = server.get("cells")[7]
        assert cell["has_picture"]
        answer = server.client.get("/api/v1/cells/7/picture")
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    (view,) = without_picture.snapshot(SESSION).cells[7].views
    left, top, right, bottom = picture_bounds(view.box_px, (640, 480))
    assert picture.shape == (bottom - top, right - left, 3)


def test_without_frames_it_has_none(without_picture):
    with served(without_picture, FakeFields("there is no recording")) as server:
        assert not server.get("cells")[7]["has_picture"]
        assert refused_get(server, "cells/7/picture") == (404, "unknown cell")


def test_a_cell_that_was_missed(server):
    before = server.get("differential")["total"]
    place = {"frame_id": 0, "x_px": 124.0, "y_px": 118.0, "width_px": 60, "height_px": 60}
    number = server.post("cells", **place, **{"class": "blast"})["cell_id"]
    assert server.get("differential")["total"] == before + 1
    field = server.get(f"cells/{number}/field")
    assert {"cell_id": number, "box_px": [94.0, 88.0, 154.0, 148.0]} in field["cells"]
    assert refused(server, "cells", **{**place, "x_px": 9e6}, **{"class": "blast"}) == (409, "no place")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("cells/999/class", {"class": "monocyte"}, (404, "unknown cell")),
        ("cells/3/class", {"class": "macrophage"}, (422, "bad class")),
        ("cells/3/class", {"class": "monocyte", "subclass": "band neutrophil"}, (422, "bad class")),
        ("cells/3/class", {"class": "monocyte", "reviewer": "<b>"}, (422, "bad reviewer")),
        ("cells/class", {"class": "monocyte", "cell_ids": []}, (422, "bad request")),
        ("undo", {}, (409, "nothing to undo")),
        ("amend", {"reason": "no reason"}, (409, "not signed")),
        ("sign?session=other", {}, (404, "unknown session")),
        ("sign", {"version": 7}, (409, "not possible")),
    ],
)
def test_what_the_desk_refuses_is_said_and_changes_nothing(server, desk, path, body, expected):
    assert refused(server, path, **body) == expected
    assert desk.snapshot(SESSION).history == ()


def test_nobody_signs_what_they_have_not_seen(server):
    seen = server.get("slide")["version"]
    server.post("cells/3/class", reviewer="CD", **{"class": "monocyte"})
    assert refused(server, "sign", version=seen) == (409, "not possible")
    server.post("sign", version=seen + 1)


def test_without_initials_nothing_is_changed(desk):
    with served(desk, FakeFields(), reviewer=None) as server:
        assert refused(server, "cells/3/class", **{"class": "monocyte"}) == (422, "bad reviewer")


def test_pictures_and_frames(server):
    assert server.client.get("/api/v1/cells/3/picture").content.startswith(b"\xff\xd8")
    frame = server.client.get("/api/v1/frames/0")
    assert (frame.headers["content-type"], frame.content[:2]) == ("image/jpeg", b"\xff\xd8")
    field = server.get("cells/23/field")
    assert (field["frame_id"], field["width"], field["height"], len(field["cells"])) == (1, 640, 480, 20)


def test_without_frames_it_is_said_why(desk):
    with served(desk, FakeFields(why_not="there is no recording")) as server:
        assert server.get("cells/3/field")["why_not"] == "there is no recording"
        assert server.client.get("/api/v1/frames/0").status_code == 404


def test_the_best_view_is_whole_and_in_the_middle():
    views = tuple(CellView(number, (0, 0, width, 50)) for number, width in enumerate((10, 50, 49, 50, 20)))
    assert best_view(type("Shown", (), {"views": views})) == 2


def test_a_correction_is_heard_at_once(server):
    page, other = Listener(server, reviewer="AB"), Listener(server, reviewer="CD")
    assert [name for name, _ in page.events] == ["hello"]
    late = []
    for number in range(20):
        page.times.clear(), other.times.clear()
        began = time.monotonic()
        server.post(f"cells/{number}/class", **{"class": "monocyte"})
        for one in (page, other):
            one.wait_for(number + 2)
            late.append(one.times[-1] - began)
    assert sorted(late)[len(late) // 2] <= LATEST_S
    name, change = other.events[-1]
    assert name == "change"
    assert [(cell["cell_id"], cell["class"]) for cell in change["cells"]] == [(19, "monocyte")]
    assert change["result"]["rows"] == server.get("slide")["result"]["rows"]
    assert change["version"] == server.get("slide")["version"]


def test_a_burst_comes_as_few_events_and_whole(server, desk):
    listener = Listener(server)
    for number in range(40):
        desk.classify(SESSION, [number % 10], ("monocyte", "basophil")[number >= 20], None, "AB")
    newest = server.get("slide")["version"]
    until = time.monotonic() + 10
    while listener.events[-1][1]["version"] < newest and time.monotonic() < until:
        time.sleep(0.01)
    cells, history = {}, []
    for _, change in listener.events[1:]:
        cells |= {cell["cell_id"]: cell["class"] for cell in change["cells"]}
        history += change["history"]
    assert cells == dict.fromkeys(range(10), "basophil")
    assert [entry["number"] for entry in history] == list(range(40))


def test_what_is_said_blind_is_heard_by_nobody_else(server):
    mine, others = Listener(server, reviewer="AB"), Listener(server, reviewer="CD")
    server.post("begin", blind=True)
    server.post("cells/3/class", **{"class": "blast"})
    server.post("cells/4/class", reviewer="CD", **{"class": "monocyte"})
    for one in (mine, others):
        until = time.monotonic() + 10
        while one.events[-1][1]["version"] < 3 and time.monotonic() < until:
            time.sleep(0.01)

    def heard(listener):
        return [(entry["by"], entry["kind"]) for _, change in listener.events[1:] for entry in change["history"]]

    assert heard(mine) == [("AB", "begin"), ("AB", "class"), ("CD", "class")]
    assert heard(others) == [("CD", "class")]
    assert server.get("cells", reviewer="AB")[3]["own"] == ["blast", None]
    assert server.get("cells", reviewer="CD")[3]["own"] is None
    assert "blast" not in {cell["class"] for cell in server.get("cells")}


def test_changes_that_wait_are_one():
    desk = FakeDesk(make_cells(5))
    heard, there = [], threading.Event()
    desk.listen(lambda change: (heard.append(change), there.set() if len(heard) == 3 else None))
    added = desk.add_cell(SESSION, 0, 100, 100, "blast", "AB")
    desk.classify(SESSION, [added, 1], "monocyte", None, "AB")
    desk.undo(SESSION, "AB")
    assert there.wait(5)
    both = merged(merged(heard[0], heard[1]), heard[2])
    assert {cell.cell_id: cell.class_name for cell in both.cells}[added] == "blast"
    assert (both.version, len(both.history)) == (3, 3)
    heard.clear(), there.clear()
    desk.undo(SESSION, "AB")
    desk.close()
    assert merged(both, heard[0]).removed == (added,)
    assert added not in {cell.cell_id for cell in merged(both, heard[0]).cells}


def test_it_says_of_itself_what_it_can(server):
    spec = server.get("openapi.json")
    promised = {
        ("/api/v1/differential", "get"),
        ("/api/v1/cells", "get"),
        ("/api/v1/cells/{cell_id}/class", "post"),
        ("/api/v1/undo", "post"),
        ("/api/v1/sign", "post"),
        ("/api/v1/events", "get"),
    }
    assert promised <= {(path, method) for path, methods in spec["paths"].items() for method in methods}
    assert all(one["summary"] for methods in spec["paths"].values() for one in methods.values())
    assert server.client.get("/docs").status_code == server.client.get("/redoc").status_code == 404


def test_every_class_has_a_key_of_its_own():
    found = choices(CLASSES, SUBCLASSES)
    keys = [choice.key for choice in found]
    assert len(set(keys)) == len(keys) == len(CLASSES) + sum(map(len, SUBCLASSES.values()))
    assert not set(keys) & set(RESERVED)
    assert not set(KEYS.values()) & set(RESERVED)
    assert len(set(KEYS.values())) == len(KEYS)
    assert {choice.name: choice.key for choice in found}["lymphocyte"] == "l"


def test_strange_classes_get_what_is_left():
    found = choices(["neutrophil", "hairy cell", "nebula", "unclassified", "123"], {})
    keys = {choice.name: choice.key for choice in found}
    assert (keys["neutrophil"], keys["unclassified"]) == ("n", "0")
    assert keys["hairy cell"] == "a"
    assert keys["nebula"] == "e"
    assert keys["123"] not in ("", *RESERVED)
    many = choices([f"class {number}" for number in range(60)], {})
    assert [choice.key for choice in many][-1] == ""
    assert class_colour("hairy cell").startswith("#")
