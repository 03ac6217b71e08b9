"""A slide from its journal to its signature, by the keys of the page alone. At each step the page, the API, a
subscriber, `recount`, the report, HL7 and FHIR say the same of it."""

import shutil
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="the review's server needs the package fastapi")
pytest.importorskip("uvicorn", reason="the review's server needs the package uvicorn")
pytest.importorskip("fhir.resources", reason="FHIR needs the package fhir.resources")
pytest.importorskip("hl7apy", reason="HL7 needs the package hl7apy")
pytest.importorskip("hl7", reason="HL7 is read back by the package hl7")

from streamer.commands.recount import recount
from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import DifferentialMessage
from streamer.review.journal_desk import JournalDesk
from streamer.review.server.frames import JournalFields
from tests.streamer.report.report_cases import Slide, write_journal
from tests.streamer.review.results_cases import counts_of, said_of
from tests.streamer.review.server.live_server import served
from tests.streamer.review.server.page_cases import opened, press, settled, table

pytestmark = pytest.mark.lengthy

CORRECTIONS = 200
"""Cells, at least."""
TYPED = 205
"""Keys. The cursor may meet a cell again that was put into a class further on."""
CELLS = 400
KEYS = {"n": "neutrophil", "l": "lymphocyte", "m": "monocyte", "e": "eosinophil", "a": "basophil"}


NOTE_KEYS = """
() => {
  window.pressed = [];
  const cursor = () => Number(document.querySelector("#gallery").getAttribute("aria-activedescendant").slice(5));
  document.addEventListener("keydown", (event) => pressed.push([cursor(), event.key]), { capture: true });
}
"""


class Follower:
    """A subscriber, and the newest differential that it was sent."""

    def __init__(self, endpoint: str) -> None:
        self.newest: DifferentialMessage | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(endpoint,), daemon=True)
        self._thread.start()

    def _follow(self, endpoint: str) -> None:
        with Subscriber(endpoint, ["differential."]) as subscriber:
            while not self._over.is_set():
                received = subscriber.receive(0.05)
                if received is not None and isinstance(received.message, DifferentialMessage):
                    self.newest = received.message

    def says(self, counts: dict[str, int], state: str) -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            newest = self.newest
            if newest is not None and (counts_of(newest), newest.review.state) == (counts, state):
                return
            time.sleep(0.01)
        newest = self.newest
        assert newest is not None, "a subscriber was sent no differential"
        assert (counts_of(newest), newest.review.state) == (counts, state)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def say_all_the_same(journal, copy, page, server, follower, state, capsys):
    """The desk holds the journal: what reads it is given a copy of the file and its log, as they are."""
    settled(page, server)
    counts = table(page)
    message = server.get("differential")
    shown = {name: one["count"] for name, one in message["classes"].items()}
    assert counts == shown | {"unclassified": message["unclassified"]}
    assert message["review"]["state"] == state
    follower.says(counts, state)
    for suffix in ("", "-wal"):
        if journal.with_name(journal.name + suffix).exists():
            shutil.copy(journal.with_name(journal.name + suffix), copy.with_name(copy.name + suffix))
    assert recount(str(copy)) == 0
    assert "equal to the final differential published" in capsys.readouterr().out
    seen = {name: count for name, count in counts.items() if count}
    for where, found in said_of(copy).items():
        assert {name: count for name, count in found.items() if count} == seen, where
    return counts


def test_two_hundred_cells_by_keyboard(browser, tmp_path, free_port, capsys):
    journal = write_journal(tmp_path / "slide.db", [Slide(cells=CELLS)])
    endpoint = f"tcp://127.0.0.1:{free_port}"
    fields = JournalFields(journal)
    with JournalDesk(journal, publish=endpoint) as desk, served(desk, fields) as server:
        follower = Follower(endpoint)
        with opened(browser, server) as page:
            before = say_all_the_same(journal, tmp_path / "0.db", page, server, follower, "unsigned", capsys)

            page.evaluate(NOTE_KEYS)
            page.keyboard.type("nlmea" * (TYPED // 5))
            said = [(number, KEYS[key]) for number, key in page.evaluate("pressed")]
            corrected = dict(said)  # of a cell that the cursor met again, the last word
            assert (len(said), len(corrected) >= CORRECTIONS) == (TYPED, True)
            after = say_all_the_same(journal, tmp_path / "1.db", page, server, follower, "in review", capsys)
            assert after != before
            (session,) = desk.sessions()
            cells = {cell.cell_id: cell for cell in desk.snapshot(session.id).cells}
            assert {number: cell.class_name for number, cell in cells.items() if cell.word is not None} == corrected
            assert page.inner_text("#progress-text").startswith(f"{len(corrected)} of ")

            page.keyboard.type("uuuuu")
            say_all_the_same(journal, tmp_path / "2.db", page, server, follower, "in review", capsys)
            cells = {cell.cell_id: cell for cell in desk.snapshot(session.id).cells}
            left = dict(said[:-5])
            assert {number: cell.class_name for number, cell in cells.items() if cell.word is not None} == left

            press(page, "Control+s")
            if page.locator("dialog textarea").count():  # such a slide has too many cells without a class
                page.fill("dialog textarea", "drawn by a test")
            page.click("dialog .main")
            page.wait_for_selector(".is-signed")
            signed = say_all_the_same(journal, tmp_path / "3.db", page, server, follower, "signed", capsys)
        follower.close()
    fields.close()

    fields = JournalFields(journal)
    with JournalDesk(journal) as desk, served(desk, fields) as server, opened(browser, server) as page:
        assert page.inner_text("#state") == "Signed by AB"
        assert table(page) == signed
        assert [one.fault for one in desk.verify(session.id)] == [None]
        page.click("#amend")
        page.fill("dialog textarea", "one more look")
        page.click("dialog .main")
        page.wait_for_selector(".is-unsigned")
        press(page, "a")
        settled(page, server)
        page.wait_for_selector(".amended .differs")
