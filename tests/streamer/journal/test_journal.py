"""The journal as a file: what goes in comes out exactly, and what can be wrong with it is one line."""

import csv
import dataclasses
import json
import os
import sqlite3
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from engines.base import UsageError
from engines.zoo.slide_flags import SlideFlag
from streamer.commands.export import export
from streamer.commands.recount import recount
from streamer.counting.slide_map import SlideUpdate
from streamer.journal import (
    Journal,
    JournaledSource,
    JournalError,
    JournalHistory,
    JournalReader,
    ModelId,
    RunJournal,
    recounted,
)
from streamer.journal.rows import GivenCommand
from streamer.journal.schema import FORMAT_VERSION
from streamer.protocol.messages import CellMessage, DifferentialMessage, encode, topic_of
from streamer.records import AttributeValue, Cell
from streamer.sources import SourceError
from streamer.stage.config import StageConfig
from streamer.stage.keyframes import Keyframe, KeyframeState, StageMap
from streamer.stage.merging import IslandMerger
from streamer.stage.positions import StagePositions
from streamer.stage.positions_state import PositionsMemory
from streamer.stage.preparation import RegistrationConfig
from streamer.stage.tracker import StageTracker
from tests.cases import ScriptedSource
from tests.streamer.journal import journal_cases
from tests.streamer.journal.journal_cases import PLACES, analysed, images, new_session, rules, session_of
from tests.streamer.protocol.message_cases import make_health


@pytest.fixture(scope="module")
def seen():
    return analysed()


def run_over(path, frames, *, resume=False, finish=True):
    """What was published of these frames."""
    journal = Journal(path, resume=resume)
    session = session_of(journal.session("slide") or new_session(journal), run_id=f"run{frames[0].frame.frame_id}")
    published = [emission for one in frames for emission in session.update(one)]
    if finish:
        published += session.finish("finished", "end of the source")
    journal.close()
    return published


@pytest.fixture(scope="module")
def written(tmp_path_factory, seen):
    """(journal of the whole walk, what was published of it)."""
    path = tmp_path_factory.mktemp("journal") / "walk.db"
    return path, run_over(path, seen)


def test_frames_come_back_exactly(written, seen):
    with JournalReader(written[0]) as journal:
        (stored,) = journal.sessions
        kept = list(stored.frames())
    assert len(kept) == len(seen) == len(PLACES)
    for one, frame in zip(seen, kept, strict=True):
        assert (frame.frame_id, frame.file) == (one.frame.frame_id, one.frame.file)
        assert (frame.width, frame.height) == (one.frame.width, one.frame.height)
        assert (frame.accepted, frame.reasons, frame.focus) == (
            one.quality.accepted,
            one.quality.reasons,
            one.quality.focus,
        )
        for name in ("boxes_px", "scores", "labels"):
            original = getattr(one.detections, name)
            assert np.array_equal(getattr(frame.detections, name), original)
            assert getattr(frame.detections, name).dtype == original.dtype
        assert np.array_equal(frame.looks.probabilities, one.classifications.probabilities)
        assert frame.looks.class_names == one.classifications.class_names
        assert np.array_equal(frame.looks.attribute_probabilities, one.classifications.attribute_probabilities)
        assert np.array_equal(frame.looks.novelty, one.classifications.novelty)
        assert frame.looks.attributes == one.classifications.attributes


def test_every_message_is_kept_as_it_was_published_and_can_be_had_after_any_number(written):
    path, published = written
    with JournalReader(path) as journal:
        (stored,) = journal.sessions
        assert list(stored.messages_after(-1)) == [(encode(message), payload) for message, payload in published]
        assert [json.loads(header)["session_seq"] for header, _ in stored.messages_after(40, 3)] == [41, 42, 43]
        assert stored.next_seq == len(published)
        with_pictures = [(m.cell_id, payload) for m, payload in published if isinstance(m, CellMessage) and payload]
        assert list(stored.pictures()) == with_pictures
    assert with_pictures


@pytest.mark.parametrize(
    "keep",
    [
        pytest.param(lambda session, told: session.other(told), id="of nothing"),
        pytest.param(
            lambda session, told: session.command(GivenCommand("run", "anyone", "7", "pause", "{}"), 3, None, told),
            id="of a command",
        ),
        pytest.param(lambda session, told: session.end((), SlideUpdate((), (), ()), told), id="of the end"),
    ],
)
def test_messages_that_come_without_a_frame_are_kept_too(written, tmp_path, keep):
    emissions = written[1][:3]
    journal = Journal(tmp_path / "told.db")
    keep(new_session(journal), emissions)
    stored = journal.session("slide").stored
    assert list(stored.messages_after(-1)) == [(encode(message), payload) for message, payload in emissions]
    assert stored.next_seq == 3
    journal.close()


def test_cells_and_their_changes_are_there_for_sql(written):
    path, published = written
    newest = {message.cell_id: message for message, _ in published if isinstance(message, CellMessage)}
    database = sqlite3.connect(path)
    found = dict(database.execute("SELECT cell_id, class FROM cells").fetchall())
    database.close()
    assert found == {message.cell_id: message.class_ for message in newest.values() if message.counted}
    final = [message for message, _ in published if isinstance(message, DifferentialMessage)][-1]
    assert len(found) == final.total == 16


def test_how_cells_look_and_why_they_are_unclassified_is_published_and_kept(written, tmp_path):
    path, published = written
    told = [message for message, _ in published if isinstance(message, CellMessage)]
    for message in told:
        assert (message.attributes is not None) == (message.class_ in ("neutrophil", "lymphocyte"))
        assert (message.unclassified_reason is not None) == (message.class_ == "unclassified")
    assert {m.unclassified_reason for m in told} == {None, "low confidence", "unlike the training cells"}
    described = next(m for m in told if m.attributes)
    assert described.attributes["nucleus_shape"].value in ("round", "bent")
    assert 0.5 <= described.attributes["cell_size"].confidence <= 1
    database = sqlite3.connect(path)
    rows = database.execute(
        "SELECT cell_id, unclassified_reason, attributes FROM cell_traits ORDER BY rowid"
    ).fetchall()
    database.close()
    told = [m for m in told if m.counted and (m.attributes or m.unclassified_reason)]
    wanted = [(m.cell_id, m.unclassified_reason, m.attributes) for m in told]
    assert [
        (number, reason, said and msgspec.json.decode(said, type=dict[str, AttributeValue]))
        for number, reason, said in rows
    ] == wanted
    assert export(str(path), "csv", str(tmp_path / "cells.csv"), None) == 0
    assert export(str(path), "json", str(tmp_path / "all.json"), None) == 0
    last = {row["cell_id"]: row for row in csv.DictReader((tmp_path / "cells.csv").open())}
    for cell in json.loads((tmp_path / "all.json").read_text())["sessions"][0]["cells"]:
        row = last[str(cell["cell_id"])]
        assert row["unclassified_reason"] == (cell["unclassified_reason"] or "")
        assert row["nucleus_shape"] == (cell["attributes"]["nucleus_shape"]["value"] if cell["attributes"] else "")
        assert (row["cell_size_confidence"] == "") == (cell["attributes"] is None)


def test_cells_that_turned_out_to_be_others_are_not_among_the_cells(tmp_path):
    def cell(number, name):
        return Cell(number, 0, 5.0, 6.0, "white", name, None, name, {name: 1.0}, 2, False, 0, 3)

    journal = Journal(tmp_path / "joined.db")
    session = new_session(journal)
    session.end((), SlideUpdate((), (cell(1, "monocyte"), cell(2, "basophil"), cell(3, "basophil")), ()), [])
    session.end((), SlideUpdate((), (cell(1, "neutrophil"),), ((2, 1), (3, None))), [])
    assert journal.database.execute("SELECT cell_id, class FROM cells").fetchall() == [(1, "neutrophil")]
    changes = journal.database.execute("SELECT cell_id, class, joined_to FROM cell_changes").fetchall()
    assert changes[3:] == [(2, None, 1), (3, None, None), (1, "neutrophil", None)]
    journal.close()


def told(emissions):
    """Messages without what every run stamps anew."""
    stamps = {"run_id", "seq", "last_seq", "published_ns", "published_utc", "captured_utc"}
    return [
        ({key: value for key, value in msgspec.to_builtins(message).items() if key not in stamps}, payload)
        for message, payload in emissions
    ]


@pytest.mark.parametrize("every", [1000, 4])
@pytest.mark.parametrize("cut", range(1, len(PLACES), 5))
@pytest.mark.lengthy
def test_a_session_cut_off_after_any_frame_goes_on_to_the_same(tmp_path, seen, written, cut, every, monkeypatch):
    monkeypatch.setattr("streamer.run.session.CHECKPOINT_EVERY_FRAMES", every)
    path = tmp_path / "cut.db"
    published = run_over(path, seen[:cut], finish=False)
    published += run_over(path, seen[cut:], resume=True)
    assert told(published) == told(written[1])


def test_only_the_frames_since_the_checkpoint_are_counted_again(tmp_path, seen, written, monkeypatch):
    monkeypatch.setattr("streamer.run.session.CHECKPOINT_EVERY_FRAMES", 10)
    path = tmp_path / "cut.db"
    published = run_over(path, seen[:28], finish=False)
    database = sqlite3.connect(path)
    (frame_id,) = database.execute("SELECT frame_id FROM checkpoints").fetchone()
    assert frame_id == seen[19].frame.frame_id
    database.execute("DELETE FROM frames WHERE frame_id <= ?", (frame_id,))
    database.commit()
    database.close()
    published += run_over(path, seen[28:], resume=True)
    assert told(published) == told(written[1])


def test_all_that_a_stage_tracker_remembers_is_kept():
    """Whoever adds to it adds to TrackerState or KeyframeState, to the journal's tables, and here."""
    given = {"_config", "_registration", "_map"}
    kept = {"_reference", "_last", "_found", "_was_found", "_distorted", "_static", "_positions"}
    follows = {"_ignored_px", "_lenient", "_merger", "_hidden", "_parts", "_arranger"}
    assert set(vars(StageTracker())) == given | follows | kept
    merger = IslandMerger(StageMap(1.0), StageConfig(), RegistrationConfig())
    assert set(vars(merger)) == given | {"_merged", "_bears_out"} | {"_pending", "_hunches", "given_up"}
    follows = {"_by_place", "_hidden", "_ready", "_smears", "_with_picture", "forgotten", "_islands", "_moved", "_new"}
    kept = {"_keyframes", "_next_island", "joins"}
    assert set(vars(StageMap(1.0))) == {"_announce_px", "_changed"} | kept | follows
    positions = StagePositions(StageMap(1.0))
    remembered = {name.lstrip("_") for name in vars(positions)} - {"map", "config", "now", "usable", "may_be_exact"}
    in_memory = set(PositionsMemory.__struct_fields__) - {"joins"}
    assert remembered == in_memory | {"readings"}
    keyframe, state = (
        {field.name for field in dataclasses.fields(kind)} - {"frame"} for kind in (Keyframe, KeyframeState)
    )
    assert keyframe == state


@pytest.mark.lengthy
def test_a_restored_stage_tracker_goes_on_as_the_original(seen):
    """After every frame, so that no part of its state can be forgotten."""
    original = StageTracker()
    kept, tracker = {}, None
    for one in seen:
        restored = StageTracker()
        if tracker is not None:
            restored.restore([kept[number] for number in sorted(kept)], tracker)
        arguments = (one.prepared, one.quality.accepted)
        assert restored.update(*arguments) == original.update(*arguments)
        changes, again = original.take_changes(), restored.take_changes()
        assert [state for state, _ in again.keyframes] == [state for state, _ in changes.keyframes]
        tracker = changes.tracker
        for name in ("next_island", "reference", "pending", "distorted", "given_up", "was_found", "hunches"):
            assert getattr(again.tracker, name) == getattr(tracker, name)
        kept |= {state.number: (state, replace(frame, spectrum=None)) for state, frame in changes.keyframes}
    assert len(kept) > 3


def test_recount_says_that_it_is_what_was_published(written, capsys):
    assert recount(str(written[0])) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("verdict on slide: ")
    assert "differential of slide: 16 white cells in 33 frames, 32 of them accepted" in said
    assert said[-1].startswith("equal to the final differential published, ")


def test_recount_of_a_session_that_was_cut_off_compares_with_the_last_one_published(tmp_path, seen, capsys):
    path = tmp_path / "cut.db"
    published = run_over(path, seen[:20], finish=False)
    last = [message for message, _ in published if isinstance(message, DifferentialMessage)][-1]
    assert recount(str(path)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("verdict on slide so far: ")
    assert "differential so far of slide: 14 white cells in 20 frames" in said
    assert said[-1] == f"equal to the last differential published, {last.published_utc}"


def test_a_journal_of_protocol_1_is_counted_by_the_rules_of_today(tmp_path, seen, capsys):
    path = tmp_path / "old.db"
    run_over(path, seen)
    database = sqlite3.connect(path)
    rows = database.execute("SELECT session_seq, header FROM messages WHERE type = 'differential'").fetchall()
    for number, header in rows:
        old = json.loads(header) | {"version": "1.0", "flags": ["nucleated red cells seen"], "total": 17}
        database.execute("UPDATE messages SET header = ? WHERE session_seq = ?", (json.dumps(old).encode(), number))
    database.commit()
    database.close()
    assert recount(str(path)) == 0
    said = capsys.readouterr().out.splitlines()
    assert "differential of slide: 16 white cells in 33 frames, 32 of them accepted" in said
    assert said[-1] == "the final differential published has other rules, those of protocol 1.0: not compared"


def test_recount_says_what_differs(tmp_path, seen, capsys):
    path = tmp_path / "changed.db"
    run_over(path, seen[:12])
    database = sqlite3.connect(path)
    database.execute("UPDATE looks SET probabilities = ?", (np.array([0, 1, 0, 0, 0], "<f4").tobytes(),))
    database.commit()
    database.close()
    assert recount(str(path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "another classes" in line


def test_export_as_csv_gives_the_counted_cells_and_their_pictures(written, tmp_path):
    out, folder = tmp_path / "cells.csv", tmp_path / "pictures"
    assert export(str(written[0]), "csv", str(out), str(folder)) == 0
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 16
    final = written[1][-2][0]
    for name, share in final.classes.items():
        assert sum(row["class"] == name for row in rows) == share.count
    for row in rows:
        assert sum(float(row[name]) for name in row if name.startswith("p(")) == pytest.approx(1, abs=1e-3)
        if row["picture"]:
            assert (folder / row["picture"]).read_bytes().startswith(b"\xff\xd8")
    assert {path.name for path in folder.iterdir()} >= {row["picture"] for row in rows} - {""}


def test_no_cell_of_the_csv_is_a_formula_and_numbers_stay_numbers(copy, tmp_path):
    database = sqlite3.connect(copy)
    [rules] = database.execute("SELECT rules FROM sessions").fetchone()
    for name, evil in (("basophil", "=1+1"), ("monocyte", "@SUM(A1)"), ("lymphocyte", "-2"), ("nucleus_shape", "+x")):
        rules = rules.replace(f'"{name}"', f'"{evil}"')
    database.execute("UPDATE sessions SET rules = ?, id = '\tid'", (rules,))
    database.execute("UPDATE frames SET x_px = x_px - 2000")
    database.commit()
    database.close()
    assert export(str(copy), "csv", str(tmp_path / "cells.csv"), None) == 0
    with open(tmp_path / "cells.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"'=1+1", "'@SUM(A1)", "'-2"} <= {row["class"] for row in rows} | {row["top_class"] for row in rows}
    assert rows[0]["session"] == "'\tid"
    assert "'+x" in rows[0]
    assert all(float(row["x_px"]) < 0 for row in rows)


def test_export_as_coco_gives_every_box_of_every_frame(written, seen, tmp_path):
    out = tmp_path / "boxes.json"
    export(str(written[0]), "coco", str(out), None)
    coco = json.loads(out.read_text())
    assert [image["file_name"] for image in coco["images"]] == [one.frame.file for one in seen]
    assert [category["name"] for category in coco["categories"]] == ["WBC", "RBC", "platelet"]
    boxes = [box for one in seen for box in one.detections.boxes_px.tolist()]
    assert len(coco["annotations"]) == len(boxes)
    for annotation, (x1, y1, x2, y2) in zip(coco["annotations"], boxes, strict=True):
        assert annotation["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
    cells = {a["attributes"]["cell_id"] for a in coco["annotations"] if a["category_id"] == 1} - {None}
    assert len(cells) == 16


def test_export_as_json_gives_everything(written, seen, tmp_path):
    out = tmp_path / "all.json"
    export(str(written[0]), "json", str(out), None)
    (session,) = json.loads(out.read_text())["sessions"]
    assert (session["source"], session["differential"]["total"], len(session["cells"])) == ("slide", 16, 16)
    assert [frame["frame_id"] for frame in session["frames"]] == list(range(len(seen)))
    looks = [box["look_probabilities"] for frame in session["frames"] for box in frame["detections"] if box["class"]]
    assert len(looks) == sum(len(one.detections.white_rows) for one in seen) - uncounted(session)


def uncounted(session):
    return sum(
        box["kind"] == "white" and box["class"] is None for frame in session["frames"] for box in frame["detections"]
    )


# Bad input: one line each, and the file stays as it is


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def copy(written, tmp_path):
    path = tmp_path / "copy.db"
    path.write_bytes(written[0].read_bytes())
    return path


def other_version(path):
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()


def other_program(path):
    path.unlink()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE bookmarks (address TEXT)")
    database.close()


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def damaged(path):
    content = bytearray(path.read_bytes())
    content[40_000:120_000] = bytes(80_000)
    path.write_bytes(content)


BAD = {
    other_version: f"got format 7, expected {FORMAT_VERSION}",
    other_program: "another program",
    truncated: "damaged",
    damaged: "damaged",
    lambda path: path.write_bytes(b"{}"): "another kind of file",
    lambda path: path.write_bytes(b""): "an empty file",
}


@pytest.mark.parametrize(("spoil", "expected"), BAD.items(), ids=range(len(BAD)))
def test_a_file_that_is_no_good_journal_is_refused(copy, spoil, expected):
    spoil(copy)
    before = copy.read_bytes()
    for refusing in (lambda: Journal(copy, resume=True), lambda: JournalReader(copy)):
        with pytest.raises(JournalError) as error:
            refusing()
        assert expected in one_line(error)
    assert copy.read_bytes() == before


def test_a_file_that_is_too_large_to_be_read_through_is_refused_when_it_was_cut_off(copy, monkeypatch):
    monkeypatch.setattr("streamer.journal.schema.CHECKED_BYTES", 0)
    JournalReader(copy).close()
    truncated(copy)
    with pytest.raises(JournalError, match="damaged"):
        JournalReader(copy)


def test_a_missing_journal_can_not_be_read(tmp_path):
    with pytest.raises(JournalError, match="No such file"):
        JournalReader(tmp_path / "missing.db")


def test_an_existing_journal_is_not_written_to_without_resume(copy):
    before = copy.read_bytes()
    with pytest.raises(UsageError, match="add --resume"):
        Journal(copy)
    assert copy.read_bytes() == before


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_journal_that_can_not_be_written_is_refused(copy):
    copy.chmod(0o444)
    with pytest.raises(JournalError, match="can't be written"):
        Journal(copy, resume=True)


def test_a_journal_in_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(JournalError, match="folder that can"):
        Journal(tmp_path / "missing" / "new.db")


def resumed(path, *, source=None, address="path:/frames", **changes):
    return RunJournal(
        str(path),
        [JournaledSource(source or ScriptedSource(images()), address)],
        {"slide": msgspec.structs.replace(rules(), **changes)},
        resume=True,
        run_id="later",
        configuration="{}",
    )


OTHERS = {
    "another detector": ({"detector": ModelId(name="scripted-detector", sha256="ab" * 32)}, "detector (abababababab…)"),
    "another classifier": ({"classifier": None}, "got classifier none, expected scripted-classifier"),
    "another threshold": ({"operating_score": 0.4}, "got operating score 0.4, expected 0.5"),
    "another input": ({"long_side_px": 640}, "got long side px 640, expected 320"),
    "another source": ({"address": "path:/others"}, "got the source path:/others, expected path:/frames"),
}


@pytest.mark.parametrize(("changes", "expected"), OTHERS.values(), ids=OTHERS)
def test_a_session_of_something_else_is_not_gone_on_with(copy, changes, expected):
    before = copy.read_bytes()
    with pytest.raises(JournalError) as error:
        resumed(copy, **changes)
    assert expected in one_line(error)
    assert "--journal" in one_line(error)
    assert copy.read_bytes() == before


def test_flags_of_a_slide_are_gone_on_with_and_recounted(tmp_path, seen, monkeypatch, capsys):
    plain = journal_cases.classifier

    def flagging():
        made = plain()
        made.card = replace(made.card, slide_flags=(SlideFlag("eosinophil", above=0.3, false_rate=0.001),))
        return made

    monkeypatch.setattr(journal_cases, "classifier", flagging)
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    once = run_over(whole, seen)[-2][0]
    run_over(parts, seen[:14], finish=False)
    again = run_over(parts, seen[14:], resume=True)[-2][0]
    assert again.flags == once.flags
    [flag] = [flag for flag in once.flags if flag.class_ == "eosinophil" and flag.direction == "seen"]
    assert flag.text.startswith(f"eosinophil? {flag.count} of {once.total} (pictures")
    for path in (whole, parts):
        assert recount(str(path)) == 0
    capsys.readouterr()
    monkeypatch.setattr(journal_cases, "classifier", plain)
    with pytest.raises(JournalError, match="got slide flags"):
        resumed(whole)


def without_names(path):
    """The files of the walk have names; what ScriptedSource gives has none."""
    database = sqlite3.connect(path)
    database.execute("UPDATE frames SET file = NULL")
    database.commit()
    database.close()


def test_another_slide_under_the_same_address_is_recognised(copy):
    without_names(copy)
    before = copy.read_bytes()
    other = images()
    other[-1] = np.ascontiguousarray(other[-1][:, ::-1])
    for items, got in ((other, "another picture"), (other[:5], "fewer frames")):
        source = ScriptedSource(items)
        with pytest.raises(SourceError, match=got) as error:
            resumed(copy, source=source)
        one_line(error)
        assert source.closed >= 1
    assert copy.read_bytes() == before


def test_a_finite_source_goes_on_with_the_next_frame(tmp_path, seen):
    path = tmp_path / "cut.db"
    run_over(path, [replace_file(one) for one in seen[:9]], finish=False)
    source = ScriptedSource([*images()[:4], "notes.txt", *images()[4:]])
    journal = resumed(path, source=source)
    (going_on,) = journal.sources
    going_on.open()
    frames = []
    while (item := going_on.read()) is not None:
        frames.append(item.frame_id)
    going_on.close()
    journal.close()
    assert frames == list(range(9, len(PLACES)))
    assert (source.opened, source.closed) == (1, 1)


@pytest.mark.lengthy
def test_a_live_source_is_numbered_on_and_counts_no_cell_twice(tmp_path, seen):
    path = tmp_path / "live.db"
    run_over(path, [replace_file(one) for one in seen[:20]], finish=False)
    with JournalReader(path) as kept:
        count = recounted(kept.sessions[0]).count
        count.finish(())
        before = count.differential(final=True)
    again = seen[4:13]
    journal = resumed(path, source=ScriptedSource([one.frame.image for one in again], default_mode="live"))
    (going_on,) = journal.sources
    going_on.open()
    ids = [going_on.read().frame_id for _ in again]
    assert ids == list(range(20, 29))
    session = session_of(journal.session("slide"), run_id="again")
    for number, one in zip(ids, again, strict=True):
        list(session.update(replace(one, frame=replace(one.frame, frame_id=number))))
    final = session.finish("finished", "end of the source")[-2][0]
    journal.close()
    assert final.frames == 29
    assert (final.total, final.rbc_seen, final.platelets_seen) == (
        before.total,
        before.rbc_seen,
        before.platelets_seen,
    )


def replace_file(one):
    return replace(one, frame=replace(one.frame, file=None))


def test_on_a_full_disk_nothing_is_published_that_the_journal_lacks_and_nothing_is_half_written(tmp_path, seen):
    path = tmp_path / "full.db"
    journal = Journal(path)
    session = session_of(new_session(journal))
    published = [emission for one in seen[:10] for emission in session.update(one)]
    pages = journal.database.execute("PRAGMA page_count").fetchone()[0]
    journal.database.execute(f"PRAGMA max_page_count = {pages + 1}")
    done = 9

    def go_on():
        nonlocal done
        for done, one in enumerate(seen[10:], start=10):  # noqa: B007
            published.extend(session.update(one))

    with pytest.raises(JournalError, match="expected room"):
        go_on()
    assert session.finish("failed", "no room") == []
    assert session.health(make_health()) == []
    assert session.picture(seen[0].frame, (b"jpeg", 4, 4)) == []
    journal.close()
    with JournalReader(path) as kept:
        (stored,) = kept.sessions
        assert len(list(stored.frames())) == done
        assert [header for header, _ in stored.messages_after(-1)] == [encode(message) for message, _ in published]
        assert stored.next_seq == len(published)
        assert not stored.ended


def test_after_a_fault_within_a_frame_nothing_follows_that_the_journal_lacks(tmp_path, seen, monkeypatch):
    journal = Journal(tmp_path / "fault.db")
    session = session_of(new_session(journal))
    published = [emission for one in seen[:3] for emission in session.update(one)]
    monkeypatch.setattr(session.factory, "frame", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.update(seen[3])
    assert session.finish("failed", "division by zero") == []
    assert not journal.broken
    assert journal.session("slide").stored.next_seq == len(published)
    journal.close()


def test_an_end_that_can_not_be_kept_is_not_published(tmp_path, seen):
    journal = Journal(tmp_path / "end.db")
    session = session_of(new_session(journal))
    published = [emission for one in seen[:3] for emission in session.update(one)]
    journal.database.execute("CREATE TRIGGER full BEFORE UPDATE ON sessions BEGIN SELECT RAISE(FAIL, 'full'); END")
    with pytest.raises(JournalError):
        session.finish("finished", "end of the source")
    assert session.finish("finished", "end of the source") == []
    assert journal.session("slide").stored.next_seq == len(published)
    journal.close()


def test_the_end_is_last_and_goes_on_when_the_session_does(tmp_path, seen):
    path = tmp_path / "twice.db"
    ends = [run_over(path, seen[:4])[-1][0], run_over(path, seen[4:9], resume=True)[-1][0]]
    assert [(end.state, end.reason, end.seq) for end in ends] == [("finished", "end of the source", 0)] * 2
    with JournalReader(path) as kept:
        (stored,) = kept.sessions
        headers = [header for header, _ in stored.messages_after(-1)]
        assert headers[ends[0].session_seq] == encode(ends[0])
        assert headers[-1] == encode(ends[1])
        assert stored.next_seq == ends[1].session_seq + 1 == len(headers)


def test_two_sources_have_a_session_each(tmp_path):
    path = str(tmp_path / "two.db")
    sources = [JournaledSource(ScriptedSource([], name=name), f"path:/{name}") for name in ("left", "right")]
    both = {"left": rules(), "right": rules()}
    first = RunJournal(path, sources, both, resume=False, run_id="1", configuration="{}")
    ids = [first.session(name).stored.id for name in ("left", "right")]
    first.close()
    second = RunJournal(path, sources, both, resume=True, run_id="2", configuration="{}")
    assert [second.session(name).stored.id for name in ("left", "right")] == ids
    assert [len(second.session(name).stored.runs()) for name in ("left", "right")] == [2, 2]
    second.close()
    assert len(set(ids)) == 2


def test_a_replay_from_the_journal_is_what_was_published(written):
    path, published = written
    with JournalReader(path) as journal:
        history = JournalHistory(journal.sessions)
        id_ = journal.sessions[0].id
        got, after = [], -1
        topics = [b"cell.", b"frame."]
        while (batch := history.read(id_, after, 10**9, topics, max_messages=3, max_bytes=10**6)) is not None:
            got += batch.messages
            after = batch.through
        wanted = [(m, p) for m, p in published if topic_of(m).startswith(("cell.", "frame."))]
        assert [parts[1] for parts in got] == [encode(message) for message, _ in wanted]
        assert [parts[0] for parts in got] == [topic_of(message).encode() for message, _ in wanted]
        assert [parts[2] if len(parts) > 2 else None for parts in got] == [payload for _, payload in wanted]
        assert after == published[-1][0].session_seq
        only = history.read(id_, 4, 6, [b""], max_messages=99, max_bytes=10**6)
        assert only is not None
        assert ([parts[1] for parts in only.messages], only.through) == ([encode(m) for m, _ in published[5:7]], 6)
        assert history.read("another", -1, 5, [b""], max_messages=1, max_bytes=1) is None
