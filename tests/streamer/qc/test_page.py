"""The page of quality control: what stands on it, and that nothing in it is loaded or runs."""

from __future__ import annotations

import pytest

from streamer.journal import opened
from streamer.qc.counts import counted_slide
from streamer.qc.levey_jennings import histories
from streamer.qc.page import Outcome, page
from streamer.qc.reference import checked_against
from tests.streamer.journal.journal_cases import write_walk
from tests.streamer.qc.qc_cases import slides
from tests.streamer.report.report_cases import read

MADE_UTC = "2031-02-03T04:05:06.700000Z"


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    accepted, now = write_walk(folder / "a.db"), write_walk(folder / "b.db", ["basophil"] * 12)
    history = histories(slides([0.5, 0.52, 0.48, 0.5, None, 0.9], instrument="<b>camera</b>"), 4)
    with opened(str(accepted)) as one, opened(str(now)) as other:
        check = checked_against(counted_slide(one.sessions[0]), counted_slide(other.sessions[0]), recording=True)
        return page(Outcome("fail", ["<script>alert(1)</script>"]), check, history, made_utc=MADE_UTC), check


def test_the_outcome_is_first_and_the_comparison_is_whole(html):
    text, check = html
    root = read(text)
    outcome = root.section("outcome")
    assert "✕ Fail" in outcome.text
    rows = {
        row.all("th")[0].text.lower(): [cell.text for cell in row.all("td")]
        for row in root.section("reference").all("tr")
        if row.all("td") and len(row.all("td")) == 4
    }
    assert len(rows) == len(check.classes)
    for one in check.classes:
        first, second, expected, judged = rows[one.name]
        assert (int(first), int(second)) == (one.first, one.second)
        assert expected == "{}–{}".format(*one.expected)
        assert judged == ("✕ differs" if one.differs else "✓ within")
    assert any(one.differs for one in check.classes)


def test_each_measure_has_a_chart_and_each_broken_rule_a_row(html):
    root = read(html[0])
    section = root.section("instrument-1")
    assert len(section.all("figure")) == 7
    focus, *_ = section.all("figure")
    (svg,) = focus.all("svg")
    assert svg.attributes["aria-label"] == "Focus of 5 slides"
    assert len(svg.all("title")) == 5
    assert "Baseline 0.50 ± 0.02 (taken: its own is smaller)." in focus.text
    assert "Not measured on 1 slide." in focus.text
    (row,) = [row for row in section.all("tr") if row.all("td")]
    assert row.all("th")[0].text == "slide 5"
    assert row.all("td")[-1].text == "1-2s , 1-3s"


def test_nothing_is_loaded_runs_or_is_taken_for_markup(html):
    text, _ = html
    root = read(text)
    assert not {"script", "link", "img", "iframe", "b"} & {one.tag for one in root.walk()}
    assert "&lt;script&gt;alert(1)" in text
    assert root.by_id("instrument-1").text == "Over time: <b>camera</b>"
    assert "http" not in text.replace("http-equiv", "")


def test_a_history_without_baseline_and_a_page_without_reference():
    root = read(page(Outcome("not judged", ["too few"]), None, histories(slides([0.5, 0.6]), 20), made_utc=MADE_UTC))
    assert "! Not judged" in root.section("outcome").text
    assert "Not judged yet: fewer than 20 slides for a baseline." in root.section("instrument-1").text
    assert not [one for one in root.walk() if one.attributes.get("id") == "reference"]
