"""What people say of slides is kept with their sessions, and stays when a run is resumed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from streamer.analysis import models
from streamer.analysis.label import label_reader
from streamer.cli import main
from streamer.journal import Journal, JournalReader, last_published, recounted
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage, EndMessage
from streamer.records import Frame, SlideInfo
from tests.streamer.analysis.test_label import qr
from tests.streamer.journal.journal_cases import analysed, classifier, detector, new_session, session_of, write_images


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: classifier())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("named") / "frames")


def slides(path: Path) -> list[SlideInfo]:
    with JournalReader(path) as journal:
        return [one.slide for one in journal.sessions]


def test_a_run_keeps_what_is_said_and_a_resumed_one_goes_on_with_it(
    scripted: None, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.db"
    run = ["run", "--source", f"slide={images}", "--journal", str(path), "--resume", "--no-dashboard"]
    assert main([*run, "--slide", "B-17", "--operator", "AK", "--wbc", "5", "--um-per-px", "0.1"]) == 0
    said = SlideInfo(name="B-17", operator="AK", wbc=5.0, um_per_px=0.1)
    assert slides(path) == [said]
    out = capsys.readouterr().out
    assert "slide: name B-17, operator AK, micrometres a pixel 0.1" in out
    assert "white-cell count from elsewhere, 5 x 10^9/L, not corrected for nucleated red cells" in out
    assert main([*run, "--accession", "H26-4", "--operator", "BL"]) == 0
    assert slides(path) == [SlideInfo(name="B-17", operator="BL", accession="H26-4", wbc=5.0, um_per_px=0.1)]
    assert "slide: operator of the slide was 'AK' in the journal, and is 'BL' now" in capsys.readouterr().err
    assert main(["recount", str(path)]) == 0


def test_what_is_published_is_what_is_counted_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "one.db")
    session = session_of(new_session(journal), slide=SlideInfo(name="B-17", wbc=8.0))
    for one in analysed():
        session.update(one)
    emissions = session.finish("finished", "end of the source")
    journal.close()
    ends = [message for message, _ in emissions if isinstance(message, EndMessage)]
    assert ends[0].slide == SlideInfo(name="B-17", wbc=8.0)
    with JournalReader(tmp_path / "one.db") as reader:
        stored = reader.sessions[0]
        again = MessageFactory("slide", session="session", run_id="").differential(recounted(stored).differential)
        published = last_published(stored)
        assert published is not None
        assert published.slide == again.slide == stored.slide
        assert published.wbc == again.wbc
        assert again.wbc is not None
        assert again.wbc.white_cells == 8.0
        late = recounted(replace(stored, slide=SlideInfo(wbc=4.0))).differential.wbc
        assert late is not None
        assert late.classes["neutrophil"].value == again.wbc.classes["neutrophil"].value / 2


def test_a_label_in_the_first_frame_names_the_slide_before_anything_is_published(tmp_path: Path) -> None:
    lines: list[str] = []
    journal = Journal(tmp_path / "one.db")
    session = session_of(new_session(journal), label=label_reader(["name"]), on_remark=lines.append)
    frames = analysed()[:6]
    images = [one.frame.image.copy() for one in frames]
    for place, text in ((0, "S26-991"), (3, "LATER")):
        code = qr(text, 5)
        images[place][40 : 40 + len(code), 40 : 40 + len(code)] = code[:, :, None]
    published = []
    for one, image in zip(frames, images, strict=True):
        frame = Frame("slide", one.frame.frame_id, one.frame.captured_ns, image, one.frame.file)
        published += [message for message, _ in session.update(replace(one, frame=frame))]
    journal.close()
    assert lines == ["slide: label: QR code 'S26-991' in the first frame is the name of the slide"]
    assert slides(tmp_path / "one.db") == [SlideInfo(name="S26-991")]
    differentials = [message for message in published if isinstance(message, DifferentialMessage)]
    assert {message.slide.name for message in differentials if message.slide} == {"S26-991"}
    assert len(differentials) > 0


def test_without_a_label_the_slide_stays_without_a_name_and_it_is_said_once(tmp_path: Path) -> None:
    lines: list[str] = []
    journal = Journal(tmp_path / "one.db")
    session = session_of(new_session(journal), label=label_reader(["name"]), on_remark=lines.append)
    for one in analysed()[:4]:
        session.update(one)
    journal.close()
    assert slides(tmp_path / "one.db") == [SlideInfo()]
    assert len(lines) == 1
    assert "label: got none in the first frame" in lines[0]


def test_a_journal_of_before_there_were_names_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "one.db")
    new_session(journal)
    journal.close()
    with closing(sqlite3.connect(tmp_path / "one.db")) as database:
        assert database.execute("SELECT 1 FROM sqlite_master WHERE name = 'slides'").fetchone() is None
    assert slides(tmp_path / "one.db") == [SlideInfo()]
