"""Plain lines: few, and each says something new."""

from __future__ import annotations

import io

import pytest

from streamer.counting.differential import share
from streamer.dashboard import PlainReporter, format_differential
from streamer.records import NearestLaboratory, PositionsStatus, ShadowStatus, Verdict, VerdictReason, WorstLaboratory
from tests.streamer.dashboard.dashboard_cases import FIVE, differential, end, flag, health, status

SECOND = 1_000_000_000


def test_the_table_of_a_differential():
    message = differential(
        FIVE,
        3,
        nrbc=2,
        nrbc_per_100_wbc=2.0,
        flags=[flag("nucleated red cell seen (2 beside 100 white cells)")],
        edge=7,
        smudge=12,
        smudge_per_100_wbc=12.0,
        artefacts=0,
        not_assessed=["blast", "plasma cell"],
        rbc_seen=13402,
        platelets_seen=843,
        frames=388,
        frames_accepted=380,
        final=True,
    )
    assert format_differential(message, "4 of 100 cells on PBC").splitlines() == [
        "differential of slide: 100 white cells in 388 frames, 380 of them accepted",
        "  class          n  relative %  95 % limits",
        "  neutrophil    57        57.0    46.7–66.9",
        "  lymphocyte    29        29.0    20.4–38.9",
        "  monocyte       7         7.0     2.9–13.9",
        "  eosinophil     3         3.0      0.6–8.5",
        "  basophil       1         1.0      0.0–5.4",
        "  unclassified   3         3.0      0.6–8.5",
        "nucleated red cells 2 (2.0 per 100 white cells); seen: 13 402 red cells, 843 platelets",
        "in no percentage: 7 cut by an edge, 12 smudge cells (12.0 smudge cells per 100 white cells)",
        "flags: nucleated red cell seen (2 beside 100 white cells)",
        "not assessed: blast, plasma cell",
        "limits are of sampling only (clopper-pearson); what the classifier gets wrong comes on top: "
        "4 of 100 cells on PBC",
    ]


def test_what_is_known_of_a_flag_stands_behind_it():
    note = "never tested: lymphoblast"
    message = differential({"blast": 3}, flags=[flag("blast? 3 of 3 (pictures)", note=note), flag("other")])
    assert "flags: blast? 3 of 3 (pictures) [never tested: lymphoblast]; other" in format_differential(message)


def test_what_was_not_seen_may_still_be_there():
    not_seen = {"promyelocyte": 3.62167, "basophil": 3.62167}
    lines = format_differential(differential(FIVE, 3, not_seen=not_seen)).splitlines()
    assert "0 in 100 cells, at most 3.7 % each: promyelocyte, basophil" in lines
    (alone,) = (
        line
        for line in format_differential(differential({"a": 1}, not_seen={"b": 97.5})).splitlines()
        if "0 in" in line
    )
    assert alone == "0 in 1 cell, at most 97.5 %: b"


def test_limits_of_a_running_count_are_said_to_hold_at_every_look():
    lines = format_differential(differential(FIVE, 3, limits_method="confidence-sequence")).splitlines()
    assert lines[-1].startswith("limits are of sampling only (confidence sequence, valid at every look); what the")
    assert lines[7].split()[-1] == "0.2–13.0"


def test_nothing_counted_has_no_percentage():
    lines = format_differential(differential({"neutrophil": 0})).splitlines()
    assert lines[0] == "differential so far of slide: 0 white cells in 1 frame"
    assert lines[2].split() == ["neutrophil", "0", "–", "–"]


def reported(reporter: PlainReporter, out: io.StringIO, now_s: float) -> list[str]:
    """The lines that a tick at `now_s` adds."""
    before = len(out.getvalue())
    reporter.tick(int(now_s * SECOND))
    return out.getvalue()[before:].splitlines()


def test_a_run_in_plain_lines():
    out = io.StringIO()
    with PlainReporter(out, every_s=5, clock=lambda: 0) as reporter:
        assert reported(reporter, out, 0) == []
        reporter.publish(health({"slide": status(state="starting", fps=None, published=0)}))
        assert reported(reporter, out, 0.5) == [
            "leukostream: yolov5n-blood + mobilenetv3-small on onnxruntime cpu; "
            "research use only - not a medical device",
            "slide: starting (live)",
        ]
        reporter.publish(health({"slide": status(published=40)}))
        reporter.publish(differential({"neutrophil": 2, "basophil": 0}))
        assert reported(reporter, out, 1) == ["slide: open (live)"]
        assert reported(reporter, out, 4.9) == []
        assert reported(reporter, out, 5) == ["slide: 40 frames, 30.0 fps, 2 white cells: neutrophil 2"]
        assert reported(reporter, out, 11) == []  # nothing new to say
        reporter.publish(health({"slide": status(skipped={"not an image": 1}, detail="notes.txt is no image")}))
        assert reported(reporter, out, 11.5) == ["slide: skipped 1, not an image, notes.txt is no image"]
        reporter.publish(health({"slide": status(state="reopening", detail="timed out", skipped={"not an image": 2})}))
        assert reported(reporter, out, 12) == ["slide: reopening (live): timed out"]
        reporter.publish(health({"slide": status(state="ended", published=80)}))
        reporter.publish(differential({"neutrophil": 3}, final=True))
    lines = out.getvalue().splitlines()
    assert lines.count("slide: ended (live)") == 1
    assert lines[-6] == "differential of slide: 3 white cells in 1 frame"


def test_a_run_that_did_not_finish_says_why_in_its_last_line():
    for state, last in (("stopped", "slide: stopped: by SIGINT"), ("finished", "limits are of sampling only")):
        out = io.StringIO()
        with PlainReporter(out, clock=lambda: 0) as reporter:
            reporter.publish(differential({"neutrophil": 3}, final=True))
            reporter.publish(end(state, "by SIGINT"))
        assert out.getvalue().splitlines()[-1].startswith(last)


def test_an_end_is_forgotten_when_another_slide_begins():
    out = io.StringIO()
    with PlainReporter(out, clock=lambda: 0) as reporter:
        reporter.publish(end("stopped", "by SIGINT"))
        reporter.publish(differential({"neutrophil": 3}, session="another"))
    assert "SIGINT" not in out.getvalue()
    assert "3 white cells" in out.getvalue()


def test_a_gpu_that_disagrees_with_the_cpu_is_told_once():
    out = io.StringIO()
    good, bad = (ShadowStatus(checked=5, compared=100, agreed=agreed, extra=0, failed=0) for agreed in (97, 90))
    with PlainReporter(out, clock=lambda: 0) as reporter:
        for second, one in enumerate((good, bad, bad)):
            reporter.publish(health({"slide": status()}, backend="tensorrt int8", shadow={"detector": one}))
            reporter.tick(second * SECOND)
    told = [line for line in out.getvalue().splitlines() if "agrees" in line]
    assert told == [
        "leukostream: the GPU agrees with the CPU on 90.0 % only, expected 97 % or more; "
        "run with --backend onnxruntime, or compile the models again"
    ]


def test_what_is_left_out_of_the_frames_is_told_once():
    out = io.StringIO()
    reporter = PlainReporter(out, clock=lambda: 0)
    boxes = ((0, 0, 240, 44), (596, 436, 640, 480), (318, 0, 322, 480), (0, 440, 118, 480))
    for hidden_px in ((), boxes, boxes[:1]):
        reporter.publish(health({"slide": status(hidden_px=hidden_px)}))
        reporter.tick(0)
    told = [line for line in out.getvalue().splitlines() if "left out" in line]
    assert told == [
        "slide: what stays in place while the slide moves is left out: 0,0,240,44 and 596,436,640,480 and 318,0,322,480"
        " and 1 more (x1,y1,x2,y2)"
    ]


def test_what_is_made_of_positions_is_told_when_it_changes():
    def said(state: str, **more: object) -> PositionsStatus:
        return PositionsStatus(state=state, frames=400, unusable=0, **{"disagreed": 0, **more})

    fit = {"um_per_px": 0.170454, "turn_deg": 89.98, "mirrored": True}
    out = io.StringIO()
    reporter = PlainReporter(out, clock=lambda: 0)
    for positions in (
        None,
        said("learning"),
        said("used", **fit),
        said("used", **fit, disagreed=3),
        said("ignored", disagreed=11, note="positions are ignored: the picture moves otherwise"),
        said("used", um_per_px=0.17, turn_deg=0.1, mirrored=False, disagreed=11),
    ):
        reporter.publish(health({"slide": status(positions=positions)}))
        reporter.tick(0)
    told = [line for line in out.getvalue().splitlines() if "positions" in line]
    assert told == [
        "slide: positions are used: 0.1705 µm a pixel, turned by 90 degrees, mirrored",
        "slide: positions are ignored: the picture moves otherwise",
        "slide: positions are used: 0.17 µm a pixel, the picture disagreed in 11 of 400 frames",
    ]


@pytest.mark.parametrize(("behind_s", "shown"), [(None, False), (0.4, False), (1.36, True)])
def test_a_stream_that_is_behind_says_so(behind_s: float | None, shown: bool):
    out = io.StringIO()
    reporter = PlainReporter(out, clock=lambda: 0)
    reporter.publish(health({"slide": status(behind_s=behind_s)}))
    reporter.tick(0)
    reporter.tick(60 * SECOND)
    assert ("1.4 s behind" in out.getvalue()) == shown


def test_one_that_is_waited_for_says_why():
    out = io.StringIO()
    reporter = PlainReporter(out, clock=lambda: 0)
    for detail in (None, "cam: not on; waiting for it", "cam: not on; waiting for it"):
        reporter.publish(health({"cam": status(state="starting", detail=detail)}))
        reporter.tick(0)
    told = [line for line in out.getvalue().splitlines() if line.startswith("cam: starting")]
    assert told == ["cam: starting (live)", "cam: starting (live): cam: not on; waiting for it"]


def test_before_anything_is_loaded_no_backend_is_named():
    out = io.StringIO()
    with PlainReporter(out, clock=lambda: 0) as reporter:
        reporter.publish(health({"slide": status()}, backend=""))
    assert out.getvalue().startswith("leukostream: yolov5n-blood + mobilenetv3-small; research use only")


def test_a_message_after_close_is_still_reported_at_the_end():
    out = io.StringIO()
    with PlainReporter(out) as reporter:
        reporter.publish(differential({"neutrophil": 3}, final=True))
        reporter.close()
        assert out.getvalue() == ""
    assert out.getvalue().startswith("differential of slide: 3 white cells")


def test_a_name_can_not_break_a_line():
    out = io.StringIO()
    with PlainReporter(out) as reporter:
        reporter.publish(health({"a\rb": status(state="failed", detail="no\nsuch\x1b[31mthing")}))
    assert out.getvalue().splitlines()[1] == "a·b: failed (live): no·such·[31mthing"


@pytest.mark.parametrize(("reason", "lines"), [("no such camera", 1), ("the disk is full", 2)])
def test_a_failure_is_printed_once(reason: str, lines: int):
    out = io.StringIO()
    with PlainReporter(out) as reporter:
        reporter.publish(health({"slide": status(state="failed", detail="no such camera")}))
        reporter.publish(end("failed", reason))
    said = [line for line in out.getvalue().splitlines() if "failed" in line]
    assert len(said) == lines
    assert said[-1].endswith(reason)


VERDICT = Verdict(
    state="incomplete",
    reasons=(
        VerdictReason("few_cells", "too few cells: 8 of 100", 8, 100),
        VerdictReason("person_needed", "blast 1: a person has to see each", 1, 0),
    ),
    worst_unseen=WorstLaboratory("far", 23.4),
    nearest=NearestLaboratory("home", 0.05, 2.0),
)


def test_the_verdict_and_its_reasons_come_first_and_the_errors_of_the_worst_and_the_nearest_laboratory_last():
    lines = format_differential(differential(FIVE, 3, verdict=VERDICT, final=True)).splitlines()
    assert lines[:4] == [
        "verdict on slide: incomplete:",
        "  too few cells: 8 of 100",
        "  blast 1: a person has to see each",
        "differential of slide: 100 white cells in 1 frame",
    ]
    assert lines[-1].endswith(
        "what the classifier gets wrong comes on top: classifier errors 23 % of the named cells in far, the worst "
        "laboratory that it never saw; this slide looks most like home, 2 % there: no promise for this slide"
    )


def test_a_verdict_without_reasons_is_one_line():
    ready = Verdict(state="ready for review", reasons=())
    lines = format_differential(differential(FIVE, 3, verdict=ready), "4 of 100 wrong").splitlines()
    assert lines[0] == "verdict on slide so far: ready for review"
    assert lines[-1].endswith("4 of 100 wrong")


def test_too_many_smudge_cells_give_a_second_differential():
    shares = {name: share(count, 150) for name, count in {"neutrophil": 20, "lymphocyte": 130, "monocyte": 0}.items()}
    verdict = Verdict(state="incomplete", reasons=(), with_smudge_cells=shares)
    lines = format_differential(differential(FIVE, 3, verdict=verdict)).splitlines()
    assert "with smudge cells as lymphocytes: neutrophil 13.3 %, lymphocyte 86.7 %" in lines
