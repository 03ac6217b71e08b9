"""The report of a journal: what stands on the page, that nothing in it is loaded or runs, its size, its command."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.analysis import models
from streamer.cli import main
from streamer.journal import JournalReader
from streamer.records import SlideInfo
from streamer.report.gallery import PICTURE_PX
from streamer.report.page import page
from streamer.report.slide import ShownSlide, show
from tests.streamer.journal import journal_cases
from tests.streamer.journal.journal_cases import write_images
from tests.streamer.report.report_cases import Element, Slide, read, write_journal

MADE_UTC = "2031-02-03T04:05:06.700000Z"


def shown(journal: Path, **options: object) -> list[ShownSlide]:
    with JournalReader(journal) as reader:
        return [show(one, made_utc=MADE_UTC, **options) for one in reader.sessions]


def report(journal: Path) -> tuple[list[ShownSlide], Element]:
    slides = shown(journal)
    return slides, read(page(slides, made_utc=MADE_UTC))


def spoil(journal: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute(sql, values)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_journal(tmp_path_factory.mktemp("report") / "one.db", [Slide(explain=True)])


@pytest.fixture(scope="module")
def one(journal: Path) -> tuple[ShownSlide, Element]:
    (slide,), root = report(journal)
    return slide, root


@pytest.fixture
def copy(journal: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(journal, tmp_path / "copy.db"))


def test_the_verdict_comes_first_and_says_that_nobody_signed(one):
    slide, root = one
    verdict = slide.differential.verdict
    (article,) = root.all("article")
    assert next(part for part in article.all("section")).attributes["class"].startswith("verdict")
    section = root.section("slide-1-verdict")
    assert verdict.state in section.text.lower()
    assert "Not reviewed, not signed" in section.text
    assert [item.text.lower() for item in section.all("li")] == [f"{one.text.lower()}." for one in verdict.reasons]
    assert root.all("header")[0].text.endswith("Research use only: not a medical device.")


def test_the_table_has_the_differential_with_limits_and_ranges(one):
    slide, root = one
    found = slide.differential
    table, *_ = root.section("slide-1-differential").all("table")
    rows = {
        row.all("th")[0].text.split(" ")[0].lower(): [cell.text for cell in row.all("td")] for row in table.all("tr")
    }
    for name, share in found.classes.items():
        count, percent, limits, usual = rows[name]
        assert (int(count), percent) == (share.count, f"{share.percent:.1f}")
        low, high = map(int, limits.split("–"))
        assert low <= share.low < low + 1
        assert high - 1 < share.high <= high
        assert usual == "{:g}–{:g}".format(*slide.ranges[name])
    assert rows["white"][0] == str(found.total)


def test_flags_and_ranges_are_in_words(tmp_path):
    slides, root = report(write_journal(tmp_path / "many.db", [Slide(cells=140)]))
    found = slides[0].differential
    section = root.section("slide-1-differential")
    assert found.flags
    for flag, item in zip(found.flags, section.all("ul", "flags")[0].all("li"), strict=True):
        assert flag.text in item.text
        assert item.text.startswith({"low": "▼ Low", "high": "▲ High", "seen": "● Seen"}[flag.direction])
    words = {"outside low": "below the usual range", "outside high": "above the usual range"}
    for name, state in found.ranges.items():
        (row,) = (row for row in section.all("tr") if row.text.lower().startswith(name))
        assert words.get(state, "can't be judged" if state == "can't be judged" else "not outside") in row.text


def test_every_cell_is_in_the_gallery_by_class_the_least_sure_first(one):
    slide, root = one
    for number, group in enumerate(slide.gallery, 1):
        items = root.section(f"slide-1-group-{number}").all("li", "cell")
        assert [int(item.attributes["id"].rpartition("-")[2]) for item in items] == [
            cell.cell.cell_id for cell in group.cells
        ]
        assert [cell.sureness for cell in group.cells] == sorted(cell.sureness for cell in group.cells)
        for cell, item in zip(group.cells, items, strict=True):
            for name, share in cell.probabilities[1:]:
                assert f"{name} {min(99, int(100 * share + 0.5))} %" in item.text.replace("\xa0", " ")
            assert cell.described in item.text
            assert f"{cell.cell.looks} look" in item.text
    counted = {group.name: len(group.cells) for group in slide.gallery if group.in_percentages}
    found = slide.differential
    assert sum(counted.values()) == found.total
    assert counted == {
        **{name: share.count for name, share in found.classes.items() if share.count},
        **({"unclassified": found.unclassified} if found.unclassified else {}),
    }


def test_pictures_are_small_jpegs_with_their_evidence_over_them(one):
    _, root = one
    for cell in root.section("slide-1-cells").all("li", "cell"):
        picture, evidence = cell.all("img")
        for image, kind in ((picture, "jpeg"), (evidence, "png")):
            head, _, data = image.attributes["src"].partition(",")
            assert head == f"data:image/{kind};base64"
            pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
            assert pixels is not None
            assert pixels.shape[2] == (3 if kind == "jpeg" else 4)
            if kind == "jpeg":
                assert max(pixels.shape[:2]) == PICTURE_PX
        assert picture.attributes["alt"] == f"Cell {cell.attributes['id'].rpartition('-')[2]}"


def test_the_evidence_lies_where_the_message_says(tmp_path):
    journal = write_journal(tmp_path / "map.db", [Slide(cells=20, explain=True, rejected=0)])
    with closing(sqlite3.connect(journal)) as database, database:
        for seq, header in database.execute("SELECT session_seq, header FROM messages WHERE type = 'cell'").fetchall():
            message = json.loads(header)
            if message["evidence"]:
                message["evidence"]["map"] = [[255, 0], [0, 0]]  # upper left
                value = json.dumps(message).encode()
                database.execute("UPDATE messages SET header = ? WHERE session_seq = ?", (value, seq))
    (slide,) = shown(journal)
    maps = [one.picture.evidence_png for group in slide.gallery for one in group.cells if one.picture]
    assert len(maps) == 20
    for png in maps:
        alpha = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)[..., 3].astype(int)
        half = len(alpha) // 2
        assert alpha[:half, :half].sum() > 5 * alpha[half:, half:].sum()
        assert alpha[0, 0] > alpha[-1, -1]


def test_frames_quality_growth_and_provenance(one):
    slide, root = one
    frames = root.section("slide-1-frames").text
    assert "Of 5 frames 3 were counted." in frames
    assert re.search(r"Out of focus.* 2 40\.0", frames)
    assert re.search(r"Stale.* 1 16\.7", frames)
    rows = [
        [cell.text for cell in (*row.all("th"), *row.all("td"))] for row in root.section("slide-1-quality").all("tr")
    ]
    assert ["White cells counted", str(slide.differential.total), "at least 100", "✕ outside"] in rows
    assert any(row[0].startswith("Stain and light") and row[1] == "not measured" for row in rows)
    curves = [figure.all("h4")[0].text for figure in root.section("slide-1-growth").all("figure")]
    assert [name.lower() for name in curves[-3:]] == [group.name for group in slide.gallery if group.in_percentages][
        -3:
    ]
    provenance = root.section("slide-1-provenance")
    assert "equal to what was published" in provenance.text
    values = dict(
        zip([term.text for term in provenance.all("dt")], [value.text for value in provenance.all("dd")], strict=True)
    )
    assert values["Frames from"] == "camera:0"
    assert values["Session"] == "session0"
    assert values["Finds the cells"] == "scripted-detector"
    assert values["Ran on"] == "onnxruntime cpu"
    assert values["A box counts from a score of"] == "0.5"
    assert values["This page made"] == "2031-02-03 04:05:06 UTC"
    assert values["Session ended"].endswith("(finished: end of the source)")


def test_a_journal_without_frames_to_draw_says_so_and_still_has_the_places(one):
    slide, root = one
    film = root.section("slide-1-film")
    assert "There is no picture of the film here" in film.text
    assert "can't be read again" in film.text
    assert len(film.all("circle")) == 2 * len(slide.film.marks) == 2 * slide.differential.total
    assert film.all("image") == []


def test_nothing_is_loaded_and_no_script_runs(one):
    _, root = one
    elements = root.walk()
    ids = {element.attributes["id"] for element in elements if "id" in element.attributes}
    for element in elements:
        assert element.tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (element.tag, name)
            assert "srcset" not in name
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith("data:image/") or value.removeprefix("#") in ids, value[:60]
            if name not in ("src", "href"):
                assert "//" not in value, (element.tag, name, value)
        if element.tag == "style":
            assert "url(" not in element.text
            assert "@import" not in element.text
    policy = next(one for one in root.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy.attributes["content"]
    assert root.all("html")[0].attributes["lang"] == "en"


HOSTILE = "<img src=x onerror=alert(1)>&\"'\x1b[2J\u202eevil\x07{{ 7*7 }}</title></style><script>alert(1)</script>"


def test_hostile_texts_are_shown_as_text(copy):
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute("UPDATE sessions SET address = ?", (HOSTILE,))
        database.execute("UPDATE runs SET program = ?", (HOSTILE,))
        (rules,) = database.execute("SELECT rules FROM sessions").fetchone()
        value = json.loads(rules)
        value["class_names"][4] = HOSTILE
        value["detector"]["name"] = HOSTILE
        database.execute("UPDATE sessions SET rules = ?", (json.dumps(value),))
        database.execute("UPDATE frames SET reasons = ? WHERE accepted = 0", (json.dumps([HOSTILE]),))
    slides = shown(copy)
    html = page(slides, made_utc=MADE_UTC)
    assert not any(character in html for character in "\x1b\x07\u202e")
    root = read(html)
    assert root.all("script") == []
    assert all(image.attributes.get("src", "").startswith("data:image/") for image in root.all("img"))
    seen = "<img src=x onerror=alert(1)>&\"'·[2J·evil·{{ 7*7 }}</title></style><script>alert(1)</script>"
    provenance = root.section("slide-1-provenance").text
    assert provenance.count(seen) == 3
    assert seen in root.section("slide-1-frames").text
    assert seen in root.section("slide-1-differential").text


@pytest.mark.parametrize("jpeg", [b"", b"<svg onload=alert(1)>", b"\xff\xd8\xff\xe0 no picture", b"GIF89a" + bytes(40)])
def test_what_is_no_jpeg_is_no_picture(copy, jpeg):
    spoil(copy, "UPDATE pictures SET jpeg = ? WHERE rowid % 2 = 0", jpeg)
    (slide,), root = report(copy)
    cells = root.section("slide-1-cells").all("li", "cell")
    without = [cell for cell in cells if "no picture" in cell.text]
    assert 0 < len(without) < len(cells)
    assert all(cell.all("img") == [] for cell in without)
    assert slide.differential.total == len(cells)


def test_the_slide_is_called_by_its_name_and_what_is_said_of_it_is_on_the_page(tmp_path):
    evil = "<script>alert(1)</script>"
    info = SlideInfo(name="B-17", accession=evil, operator="AK", fields={"<b>ward</b>": "research"}, um_per_px=0.08)
    (slide,), root = report(write_journal(tmp_path / "named.db", [Slide(cells=20, info=info)]))
    assert slide.name == "B-17"
    assert "B-17: white-cell differential" in root.all("title")[0].text
    assert [one.text for one in root.all("h2")] == ["Slide B-17"]
    (about,) = root.all("dl", "about")
    said = {row.all("dt")[0].text: row.all("dd")[0].text for row in about.children}
    assert said == {"Accession": evil, "Operator": "AK", "Micrometres a pixel": "0.08", "<b>ward</b>": "research"}
    assert not root.all("script")
    rows = root.section("slide-1-provenance").all("dl")[0]
    provenance = {label.text: value.text for label, value in zip(rows.all("dt"), rows.all("dd"), strict=True)}
    assert provenance["Name"] == "B-17"
    assert provenance["Source"] == "slide"


def test_absolute_counts_stand_beside_the_percentages(tmp_path):
    path = write_journal(tmp_path / "wbc.db", [Slide(cells=40, info=SlideInfo(wbc=8.0))])
    (slide,), root = report(path)
    (table,) = root.all("table", "absolute")
    assert "8 x 10^9/L, not corrected for nucleated red cells" in table.all("caption")[0].text
    rows = {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in table.all("tr")[1:]}
    share = slide.differential.classes["neutrophil"]
    assert rows["Neutrophil"][:2] == [f"{share.percent:.1f}", f"{8 * share.percent / 100:.2f}"]
    low, high = (float(value) for value in rows["Neutrophil"][2].split("–"))
    assert low <= 8 * share.low / 100 <= 8 * share.high / 100 <= high
    assert rows["White cells"][1] == "8.00"
    assert not report(write_journal(tmp_path / "none.db", [Slide(cells=20)]))[1].all("table", "absolute")


def test_a_white_cell_count_may_be_given_with_the_page(tmp_path, capsys):
    path = write_journal(tmp_path / "two.db", [Slide(cells=20), Slide(source="other", cells=20)])
    out = tmp_path / "two.html"
    assert main(["report", str(path), "-o", str(out), "--no-mosaic", "--wbc", "other=6.2"]) == 0
    root = read(out.read_text(encoding="utf-8"))
    assert len(root.all("table", "absolute")) == 1
    assert "6.2 x 10^9/L" in root.by_id("slide-2").text
    assert main(["report", str(path), "-o", str(out), "--wbc", "6.2"]) == 2
    assert "got a count for 2 of 2 slides, expected one slide each" in capsys.readouterr().err


def test_a_count_that_should_be_corrected_and_can_not_be_is_said(tmp_path):
    info = SlideInfo(wbc=8.0, wbc_includes_nrbc=True)
    _, root = report(write_journal(tmp_path / "nrbc.db", [Slide(cells=20, info=info)]))
    assert not root.all("table", "absolute")
    assert "No absolute counts:" in root.section("slide-1-differential").text


def test_several_slides_are_a_worklist_with_a_report_each(tmp_path):
    given = [
        Slide(source="left", cells=40),
        Slide(source="right", cells=20, ends="failed", reason="camera lost"),
        Slide(source="third", cells=20, ends=None),
    ]
    slides, root = report(write_journal(tmp_path / "three.db", given))
    worklist = root.section("worklist")
    rows = worklist.all("tbody")[0].all("tr")
    assert [row.all("a")[0].text for row in rows] == ["left", "right", "third"]
    for number, (slide, row) in enumerate(zip(slides, rows, strict=True), 1):
        assert row.all("a")[0].attributes["href"] == f"#slide-{number}"
        assert slide.differential.verdict.state in row.text
        assert str(slide.differential.total) in row.text
        assert root.by_id(f"slide-{number}").all("h2")[0].text == f"Slide {slide.name}"
    assert "failed: camera lost" in root.by_id("slide-2").text
    assert "has not ended: these are its numbers so far" in root.by_id("slide-3").text
    ids = [element.attributes["id"] for element in root.walk() if "id" in element.attributes]
    assert len(ids) == len(set(ids))


def test_a_journal_of_an_older_version(copy):
    with closing(sqlite3.connect(copy)) as database, database:
        database.execute("DROP TABLE frame_evidence")
        for seq, header in database.execute("SELECT session_seq, header FROM messages").fetchall():
            message = json.loads(header) | {"version": "1.0"}
            if message["type"] == "differential":
                message |= {"flags": ["nucleated red cells seen"]}
                for name in ("verdict", "ranges", "edge", "not_seen", "smudge"):
                    message.pop(name)
            if message["type"] == "end":
                database.execute("DELETE FROM messages WHERE session_seq = ?", (seq,))
                continue
            value = json.dumps(message).encode()
            database.execute("UPDATE messages SET header = ? WHERE session_seq = ?", (value, seq))
        (rules,) = database.execute("SELECT rules FROM sessions").fetchone()
        kept = {name: value for name, value in json.loads(rules).items() if name not in ("known", "error_rates")}
        database.execute("UPDATE sessions SET rules = ?", (json.dumps(kept),))
        database.execute("UPDATE runs SET configuration = '{}'")
    (slide,), root = report(copy)
    assert slide.end is None
    assert slide.lost is None
    assert "Losses between the source and the count were not noted." in root.section("slide-1-verdict").text
    assert "was not noted in this journal" in root.section("slide-1-frames").text
    assert "by other rules than those of 1.0" in root.section("slide-1-provenance").text
    assert len(root.section("slide-1-cells").all("li", "cell")) == slide.differential.total


def test_a_class_that_a_person_gave_is_said(copy, one):
    slide, _ = one
    cell = slide.gallery[0].cells[0].cell
    given = next(name for name in slide.differential.classes if name != cell.class_name)
    body = json.dumps({"cell_id": cell.cell_id, "class": given})
    spoil(
        copy,
        "INSERT INTO commands (session, run_id, after_frame, given_utc, by, request_id, request, body)"
        " VALUES (1, 'run0', 4, '', 'mary', 'one', 'reclassify', ?)",
        body,
    )
    (changed,), root = report(copy)
    item = root.by_id(f"slide-1-cell-{cell.cell_id}")
    assert f"{given}: by a person" in item.text
    assert changed.reclassified == 1
    assert "1 cell has a class that a person gave or confirmed." in root.section("slide-1-differential").text
    assert "By mary reclassify" in root.section("slide-1-provenance").text
    assert "with another result than was published" in root.section("slide-1-provenance").text


def test_a_slide_without_cells_or_a_place(tmp_path):
    (slide,), root = report(write_journal(tmp_path / "none.db", [Slide(cells=0)]))
    assert slide.differential.total == 0
    assert slide.film is None
    assert "No white cell was counted." in root.section("slide-1-cells").text
    assert "too few results" in root.section("slide-1-growth").text


@pytest.mark.lengthy
def test_two_thousand_cells_stay_small(tmp_path):
    slides = shown(write_journal(tmp_path / "many.db", [Slide(cells=2000, explain=True)]))
    assert slides[0].differential.total > 1800
    assert len(page(slides, made_utc=MADE_UTC).encode()) < 15_000_000 * slides[0].differential.total / 2000


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "frames")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: journal_cases.detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: journal_cases.classifier())


@pytest.mark.usefixtures("scripted")
def test_a_run_writes_its_report_at_the_end_and_leaves_nothing_else(images, tmp_path, capsys):
    out = tmp_path / "slide.html"
    assert main(["run", "--source", f"slide={images}", "--report", str(out)]) == 0
    assert f"report in {out}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]
    root = read(out.read_text())
    (picture,) = root.section("slide-1-film").all("image")
    assert picture.attributes["href"].startswith("data:image/jpeg;base64,")
    assert "finished: end of the source" in root.text


@pytest.mark.usefixtures("scripted")
def test_a_cell_that_was_published_without_a_picture_is_cut_out_of_a_frame(images, tmp_path):
    journal = tmp_path / "one.db"
    assert main(["run", "--source", f"slide={images}", "--journal", str(journal)]) == 0
    spoil(journal, "DELETE FROM pictures")
    (slide,) = shown(journal)
    cells = [one for group in slide.gallery for one in group.cells]
    assert cells
    assert all(one.picture is not None for one in cells)
    (without,) = shown(journal, with_picture=False)
    assert all(one.picture is None for group in without.gallery for one in group.cells)


@pytest.mark.usefixtures("scripted")
def test_the_scale_that_was_given_is_the_scale_of_the_film(images, tmp_path):
    journal, out = tmp_path / "one.db", tmp_path / "slide.html"
    words = ["run", "--source", f"slide={images}", "--um-per-px", "slide=0.1", "--journal", str(journal)]
    assert main([*words, "--report", str(out)]) == 0
    film = read(out.read_text()).section("slide-1-film")
    assert "The scale is the one given for the camera." in film.text
    (slide,) = shown(journal, with_picture=False)
    assert slide.film.scale.um_per_px == 0.1
    px = slide.film.bar_um / 0.1 * slide.film.px_per_slide_px
    assert slide.film.bar_px == pytest.approx(px)
    extent_mm2 = 0.1**2 * 1e-6 * 1600 * 256
    assert 0.5 * extent_mm2 < slide.film.covered_mm2 < 1.1 * extent_mm2


@pytest.mark.usefixtures("scripted")
def test_a_report_that_cannot_be_written_is_said_before_the_run(images, tmp_path, capsys):
    out = tmp_path / "missing" / "slide.html"
    assert main(["run", "--source", f"slide={images}", "--report", str(out)]) == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"leukostream: --report {out}: got no folder")
    assert "differential" not in said.out


def test_the_command(journal, tmp_path, capsys):
    out = tmp_path / "slide.html"
    assert main(["report", str(journal), "-o", str(out), "--no-mosaic"]) == 0
    assert capsys.readouterr().out.startswith(f"report in {out}, ")
    assert "left out on request" in read(out.read_text()).section("slide-1-film").text
    assert main(["report", str(journal), "-o", "-", "--source", "slide"]) == 0
    assert read(capsys.readouterr().out).all("h1")[0].text == "White-cell differential"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["one.db", "-o", "a.html", "--source", "up"], 2, "--source: got 'up', expected one of slide"),
        (["none.db", "-o", "a.html"], 1, "none.db"),
        (["one.db", "-o", "missing/a.html"], 1, "-o missing/a.html: got 'No such file or directory'"),
    ],
)
def test_bad_usage_is_one_line(copy, capsys, monkeypatch, words, status, says):
    monkeypatch.chdir(copy.rename(copy.with_name("one.db")).parent)
    assert main(["report", *words]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_without_weasyprint_a_pdf_is_one_line_and_nothing_is_written(journal, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    assert main(["report", str(journal), "-o", str(tmp_path / "a.html"), "--pdf", str(tmp_path / "a.pdf")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("leukostream: --pdf: got no WeasyPrint, expected it: pip install 'leukostream[pdf]'")
    assert list(tmp_path.iterdir()) == []


def test_a_pdf(journal, tmp_path):
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError):
        pytest.skip("no WeasyPrint")
    out = tmp_path / "a.pdf"
    assert main(["report", str(journal), "-o", str(tmp_path / "a.html"), "--pdf", str(out)]) == 0
    assert out.read_bytes().startswith(b"%PDF-")
