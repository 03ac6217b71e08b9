"""`leukostream compare`: what it says of two counts, and its exit status."""

from __future__ import annotations

import re
import shutil
from xml.etree import ElementTree

import pytest

from streamer.cli import main
from tests.streamer.journal.journal_cases import write_walk

MANUAL = "class,count\nNeutrophils,56\nlymphocyte,30\nmonocyte,8\neosinophil,4\nbasophil,2\nnRBC,1\n"


@pytest.fixture
def table(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def rows_of(out):
    return {line.split("  ")[1].strip(): line for line in out.splitlines() if line.startswith("  ")}


def test_counts_that_sampling_explains(table, capsys):
    other = MANUAL.replace("56", "50").replace("30", "36")
    assert main(["compare", table("a.csv", MANUAL), table("b.csv", other)]) == 0
    out = capsys.readouterr().out
    assert "a and b: 100 white cells in A, 100 in B" in out
    assert "0 of 5 classes differ" in out
    assert "23 of 100 comparisons" in out
    assert "erythroblast, in no percentage: A 1 (1.0 per 100 white cells)" in out
    assert "kappa: not measurable: a table of counts has no cells" in out


def test_a_class_that_differs_and_one_that_was_not_counted(table, capsys):
    other = "class,count\nneutrophil,20\nlymphocyte,70\nmonocyte,6\neosinophil,3\nblast,1\n"
    assert main(["compare", table("a.csv", MANUAL), table("b.csv", other)]) == 1
    rows = rows_of(capsys.readouterr().out)
    assert rows["neutrophil"].endswith("DIFFERS")
    assert rows["lymphocyte"].endswith("DIFFERS")
    assert rows["monocyte"].endswith("within sampling")
    assert rows["basophil"].endswith("not counted in B")
    assert rows["blast"].endswith("not counted in A")


def test_finer_classes_are_counted_as_the_one_that_the_other_side_has(table, capsys):
    other = MANUAL.replace("Neutrophils,56", "band,6\nsegmented neutrophil,50")
    assert main(["compare", table("a.csv", MANUAL), table("b.csv", other)]) == 0
    assert rows_of(capsys.readouterr().out)["neutrophil"].split()[1:5] == ["56", "56.0", "%", "56"]


def test_several_slides_get_the_mean_difference_and_a_plot(table, tmp_path, capsys):
    a = "slide,class,count\n" + "".join(f"s{i},neutrophil,{50 + i}\ns{i},lymphocyte,{50 - i}\n" for i in range(4))
    b = "slide,class,count\n" + "".join(f"s{i},neutrophil,{54 + i}\ns{i},lymphocyte,{46 - i}\n" for i in range(1, 5))
    html = tmp_path / "plots.html"
    assert main(["compare", table("a.csv", a), table("b.csv", b), "--html", str(html)]) == 0
    out = capsys.readouterr().out
    assert "over 3 slides (Bland and Altman)" in out
    assert "on one side only: s0, s4" in out
    row = next(line for line in out.splitlines() if line.endswith("B differs on the whole") and "neutrophil" in line)
    assert "+4.0 to +4.0" in row
    text = html.read_text(encoding="utf-8")
    assert re.findall("<figcaption>(.*?)</figcaption>", text) == ["neutrophil, 3 slides", "lymphocyte, 3 slides"]
    plots = [ElementTree.fromstring(plot) for plot in re.findall("<svg.*?</svg>", text, re.DOTALL)]
    points = plots[0].findall("circle")
    assert len(points) == 3
    assert len({point.get("cy") for point in points}) == 1  # all differ by the same
    assert [float(point.get("cx")) for point in points] == sorted(float(point.get("cx")) for point in points)


def test_there_is_no_plot_of_one_slide(table, tmp_path, capsys):
    html = tmp_path / "plots.html"
    assert main(["compare", table("a.csv", MANUAL), table("b.csv", MANUAL), "--html", str(html)]) == 2
    assert "--html: got one slide that both have" in capsys.readouterr().err
    assert not html.exists()


def test_a_journal_and_the_manual_count_of_its_slide(table, tmp_path, capsys):
    journal = str(write_walk(tmp_path / "slide.db"))
    assert main(["compare", journal, table("manual.csv", MANUAL)]) in (0, 1)
    out = capsys.readouterr().out
    assert "slide and manual: 16 white cells in A, 100 in B" in out


def test_two_journals_of_the_same_frames_give_kappa(tmp_path, capsys):
    first = write_walk(tmp_path / "a.db")
    shutil.copy(first, tmp_path / "same.db")
    assert main(["compare", str(first), str(tmp_path / "same.db")]) == 0
    same = capsys.readouterr().out
    assert "kappa: 1.00" in same
    assert "most often" not in same
    second = write_walk(tmp_path / "b.db", ["basophil"] * 6)
    assert main(["compare", str(first), str(second)]) in (0, 1)
    changed = capsys.readouterr().out
    assert "kappa: 1.00" not in changed
    assert "most often A and B say" in changed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "got the first line 'nothing', expected class,count"),
        ("name,number\na,1\n", "got the first line 'name,number'"),
        ("class,count\nneutrophil,many\n", "line 2: got 'neutrophil,many', expected a class and a whole number"),
        ("class,count\nneutrophil,-1\n", "line 2: got 'neutrophil,-1'"),
        ("class,count\nneutrophil\n", "line 2: got 'neutrophil'"),
        ("class,count\nneutrophil,1\nneutrophils,2\n", "line 3: got 'neutrophil' twice"),
        ("class,count\nneutrophil,0\n", "got no white cell on one side"),
        ("SQLite format 3\0", "journal"),
    ],
)
def test_what_can_not_be_read_is_bad_usage(table, capsys, text, expected):
    assert main(["compare", table("a.csv", text), table("b.csv", MANUAL)]) == 2
    out, err = capsys.readouterr()
    assert expected in err
    assert err.count("\n") == 1
    assert out == ""


def test_files_that_are_not_there_and_slides_that_are_not_the_same(table, capsys):
    assert main(["compare", "nothing.csv", table("b.csv", MANUAL)]) == 2
    assert "compare nothing.csv: got 'No such file or directory'" in capsys.readouterr().err
    two = "slide,class,count\nx,neutrophil,1\ny,neutrophil,2\n"
    assert main(["compare", table("a.csv", two), table("b.csv", MANUAL)]) == 2
    assert "got the slides x, y and b, expected some in both by name" in capsys.readouterr().err
