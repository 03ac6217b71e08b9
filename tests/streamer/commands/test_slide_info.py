"""What people say of a slide on the command line: by source, from files and scanners, and what is refused."""

from __future__ import annotations

import io

import pytest

from engines.base import UsageError
from streamer.cli import main
from streamer.commands.run.slides import slides_of, values_by_source
from streamer.commands.slide_info import read_slide_info, scanned, white_cells_of, with_wbc
from streamer.config import load_config
from streamer.journal import JournalReader
from streamer.records import SlideInfo
from tests.streamer.report.report_cases import Slide, write_journal

NAMES = ("left", "right")


def of(**given: object):
    return slides_of(load_config(None, given), NAMES)


def said_of(**given: object) -> dict[str, dict[str, object]]:
    return {name: dict(one.said) for name, one in of(**given).items()}


def test_a_text_is_of_all_sources_or_of_the_named_one():
    assert said_of(slide=("left=B-17", "right=B-18"), operator="AK", um_per_px=("left=0.1",)) == {
        "left": {"name": "B-17", "operator": "AK", "um_per_px": 0.1},
        "right": {"name": "B-18", "operator": "AK"},
    }
    assert said_of() == {"left": {}, "right": {}}


def test_a_text_may_hold_an_equals_sign():
    assert values_by_source("slide", ("left=a=b", "=W0000 26 123456", "2026=7")[:2], NAMES) == {
        "left": "a=b",
        "right": "=W0000 26 123456",
    }
    assert values_by_source("slide", "2026=7", NAMES) == {"left": "2026=7", "right": "2026=7"}


def test_a_configuration_file_may_say_it(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('slide = ["left=B-17", "right=B-18"]\nwbc = 6.2\nwbc_includes_nrbc = true\n')
    config = load_config(str(file), {"operator": ("AK",)})
    assert dict(slides_of(config, NAMES)["right"].said) == {
        "name": "B-18",
        "operator": "AK",
        "wbc": 6.2,
        "wbc_includes_nrbc": True,
    }


def test_a_file_says_the_rest_and_options_win(tmp_path):
    file = tmp_path / "slide.toml"
    file.write_text('name = "of the file"\nstain = "MGG"\nwbc = 4\n[fields]\nbatch = "7"\n')
    assert said_of(slide_info=f"left={file}", slide="B-17", wbc="right=9.5") == {
        "left": {"name": "B-17", "stain": "MGG", "wbc": 4.0, "fields": {"batch": "7"}},
        "right": {"name": "B-17", "wbc": 9.5, "wbc_includes_nrbc": False},
    }


def test_scanners_and_labels_are_asked_for_one_by_one():
    slides = of(slide=("left=-", "right=barcode"), accession="-")
    assert (slides["left"].scanned, slides["left"].on_label) == (("slide", "accession"), ())
    assert (slides["right"].scanned, slides["right"].on_label) == (("accession",), ("name",))
    assert slides["right"].reader(SlideInfo()) is not None
    assert slides["right"].reader(SlideInfo(name="known")) is None
    assert slides["left"].reader(SlideInfo()) is None


def test_a_scanner_types_a_line_for_each_slide_that_has_no_name_yet(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("S26-1\r\nS26-2\n"))
    slides = of(slide="-", operator="AK")
    said: list[str] = []
    assert slides["left"].first(SlideInfo(), said.append) == SlideInfo(name="S26-1", operator="AK")
    assert slides["right"].first(SlideInfo(), said.append) == SlideInfo(name="S26-2", operator="AK")
    assert slides["left"].first(SlideInfo(name="S26-1"), said.append).name == "S26-1"  # resumed: nothing is read
    assert said == []
    assert "scan or type the name of the slide of right, then Enter" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["", "\n", "  \r\n"])
def test_no_line_is_no_name(monkeypatch, typed):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    with pytest.raises(UsageError, match="--slide -: got no line on standard input"):
        scanned("--slide", "the slide of left")


def test_what_a_resumed_session_is_told_anew_is_said():
    said: list[str] = []
    slide = of(accession="left=H2", slide="B-17")["left"].first(SlideInfo(name="B-17", accession="H1"), said.append)
    assert slide == SlideInfo(name="B-17", accession="H2")
    assert said == ["left: accession of the slide was 'H1' in the journal, and is 'H2' now"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slide": "middle=B"}, "--slide 'middle=B': got the source 'middle', which this run has not"),
        ({"slide": ("A", "B")}, "--slide: got 'A' and 'B' for all sources, expected one of them"),
        ({"operator": ("left=A", "left=B")}, "for source 'left'"),
        ({"slide": "x" * 81}, "got 81 characters, expected 1 to 80 printable characters"),
        ({"slide": "  "}, "--slide '': got 0 characters"),
        ({"accession": "a\x1b[31m"}, "--accession 'a\\x1b[31m': got control characters"),
        ({"stain": "a‮b"}, "--stain"),
        ({"slide_info": "nowhere.toml"}, "--slide-info nowhere.toml: got no regular file"),
        ({"wbc_includes_nrbc": True}, "--wbc-includes-nrbc: got no white-cell count"),
        ({"wbc": "left=six"}, "--wbc: got 'six'"),
    ],
)
def test_what_can_not_be_is_refused_in_a_line(given, said):
    with pytest.raises(UsageError) as error:
        of(**given)
    assert said in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf", "1e9", "6200", "", "6,2", "0.001"])
def test_what_is_no_white_cell_count_is_refused(text):
    with pytest.raises(UsageError, match=r"expected white cells in 10\^9/L, 0\.01 to 2000"):
        white_cells_of(text)
    assert white_cells_of("6.2") == 6.2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slide = 'x'", "got the key 'slide', which does not exist"),
        ("accesion = 'x'", "did you mean 'accession'?"),
        ("um_per_px = 0.1", "got the key 'um_per_px'"),
        ("name = 3", "name: got a whole number, expected a text"),
        ('name = "a\\u0007b"', "expected printable text"),
        ("[fields]\nbatch = 7", "fields"),
        ("[fields]\n" + "\n".join(f"f{n} = 'x'" for n in range(17)), "fields"),
        ("wbc = 0", "slide.toml: wbc: got '0', expected white cells"),
        ("wbc = 'six'", "wbc: got a text, expected a number"),
        ("wbc_includes_nrbc = true", "got wbc_includes_nrbc without wbc"),
        ("name = ", "expected a valid TOML file"),
    ],
)
def test_a_file_that_says_something_else_is_one_line(tmp_path, text, said):
    file = tmp_path / "slide.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        read_slide_info(str(file))
    assert said in str(error.value)
    assert f"--slide-info {file}" in str(error.value)
    assert str(error.value).isprintable()


@pytest.fixture(scope="module")
def two_slides(tmp_path_factory):
    slides = [Slide(cells=20), Slide(cells=20), Slide(source="other", cells=20)]
    return write_journal(tmp_path_factory.mktemp("wbc") / "slides.db", slides)


def test_counts_that_are_given_later_are_of_one_slide_each(two_slides):
    with JournalReader(two_slides) as journal:
        sessions = journal.sessions
        told = with_wbc(sessions, ["other=6.2", "session1=4"], False)
        assert [one.slide.wbc for one in told] == [None, 4.0, 6.2]
        assert [one.slide.wbc_includes_nrbc for one in with_wbc(told, [], True)] == [False, True, True]
        assert with_wbc(sessions[2:], ["6.2"], True)[0].slide == SlideInfo(wbc=6.2, wbc_includes_nrbc=True)
        for given, said in (("6.2", "for 3 of 3 slides"), ("slide=6.2", "for 2 of 3"), ("B=6.2", "for none of 3")):
            with pytest.raises(UsageError, match=said) as error:
                with_wbc(sessions, [given], False)
            assert "session0, session1, other" in str(error.value)
        with pytest.raises(UsageError, match="--wbc-includes-nrbc: got no white-cell count"):
            with_wbc(sessions, [], True)


@pytest.mark.parametrize("command", [["report"], ["export", "--format", "json"]])
def test_every_command_refuses_what_is_no_count(two_slides, tmp_path, capsys, command):
    out = tmp_path / "out"
    assert main([*command, str(two_slides), "-o", str(out), "--wbc", "other=nan"]) == 2
    assert "--wbc: got 'nan'" in capsys.readouterr().err
    assert not out.exists()
