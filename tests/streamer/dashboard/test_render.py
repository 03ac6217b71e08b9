"""The dashboard fits every screen and says what the messages say."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from streamer.counting.differential import share
from streamer.dashboard import DashboardState, Screenful, render
from streamer.dashboard.canvas import clean, crop, fit, span_len
from streamer.dashboard.cells import cells_panel
from streamer.dashboard.palette import CLASS_COLOURS, CLASS_LETTERS, KIND_COLOURS, PLAIN, class_colour, in_order
from streamer.dashboard.share_table import bar, differential_panel
from streamer.dashboard.words import NOT_A_DEVICE, described, limits
from streamer.records import AttributeValue, ClassShare, ShadowStatus, Verdict, VerdictReason
from tests.streamer.dashboard.dashboard_cases import FIVE, busy_state, cell, differential, flag, frame, health, status

SIZES = [(80, 24), (100, 30), (120, 35), (132, 43), (160, 45), (200, 50)]


def text_of(screen: Screenful) -> str:
    return "\n".join("".join(segment.text for segment in line) for line in screen.lines)


def assert_fits(screen: Screenful, width: int, height: int) -> None:
    assert len(screen.lines) == height
    assert {sum(cell_len(segment.text) for segment in line) for line in screen.lines} == {width}
    assert not any("\n" in segment.text or "\x1b" in segment.text for line in screen.lines for segment in line)


def many_sources(count: int) -> DashboardState:
    state = busy_state()
    states = ["open", "reopening", "ended", "failed", "starting"]
    statuses = {f"camera{i:02d}": status(state=states[i % 5], detail="no answer") for i in range(count)}
    state.update(health(statuses))
    for name in statuses:
        state.update(differential(FIVE, source=name))
    return state


STATES = {
    "nothing yet": DashboardState,
    "busy": busy_state,
    "twenty sources": lambda: many_sources(20),
}


@pytest.mark.parametrize("make", STATES.values(), ids=STATES.keys())
@pytest.mark.parametrize("colours", ["truecolor", "256", "few", "none"])
def test_every_usual_size_is_filled_exactly(make, colours):
    state = make()
    for width, height in [*SIZES, (40, 12), (60, 15), (72, 18)]:
        for picture in (True, False):
            state.picture = picture
            assert_fits(render(state, width, height, 0, colours=colours), width, height)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 220), height=st.integers(1, 60), picture=st.booleans(), seen=st.booleans())
def test_any_size_is_filled_exactly(width, height, picture, seen):
    state = busy_state()
    state.picture = picture
    if not seen:
        state.sources["slide"].picture = None
    assert_fits(render(state, width, height, 0), width, height)


@settings(max_examples=100, deadline=None)
@given(name=st.text(max_size=60), reason=st.text(max_size=60), width=st.integers(40, 140))
@pytest.mark.lengthy
def test_any_text_from_the_wire_keeps_the_screen_whole(name, reason, width):
    state = busy_state()
    state.update(frame(source=name, file=reason, accepted=False, reasons=[reason]))
    state.update(cell(5, name, source=name, subclass=reason))
    state.update(differential({name: 3, reason: 1}, source=name, flags=[flag(reason)], not_assessed=[name]))
    state.update(health({name: status(state=reason, mode=name, detail=reason, dropped={reason: 3})}, backend=reason))
    state.selected = name
    for picture in (True, False):
        state.picture = picture
        assert_fits(render(state, width, 26, 0), width, 26)


@given(text=st.text(max_size=30), width=st.integers(0, 20))
def test_cropped_text_is_at_most_as_wide_as_asked(text, width):
    assert cell_len(crop(text, width)) <= width
    assert sum(segment.cell_length for segment in fit([(text, PLAIN), ("end", PLAIN)], width)) == width


def test_control_codes_and_invisible_letters_are_taken_out():
    assert clean("a\x1b[2Jb\nc\u202ed\u200be\u0301") == "a·[2Jb·c·d·é"


def test_header_tells_backend_models_and_uptime():
    first = text_of(render(busy_state(), 200, 50)).splitlines()[0]
    for part in ("leukostream", "1:02:05", "onnxruntime cpu", "yolov5n-blood", "mobilenetv3-small", NOT_A_DEVICE):
        assert part in first


def shadow(**given):
    """What the comparison with the CPU found: 12 of 400 boxes are others."""
    plain = {"checked": 9, "compared": 400, "agreed": 388, "extra": 0, "failed": 1}
    return ShadowStatus(**{**plain, **given})


def test_header_tells_how_far_the_gpu_agrees_with_the_cpu():
    state = busy_state()
    for compared, said in (
        ({"detector": shadow()}, "97.0 % as the CPU"),
        ({"detector": shadow(), "classifier": shadow(compared=50, agreed=40)}, "80.0 % as the CPU"),
        ({"detector": shadow(compared=400, agreed=400, extra=100)}, "80.0 % as the CPU"),
    ):
        state.update(health({"slide": status()}, backend="tensorrt fp16", shadow=compared))
        first = text_of(render(state, 200, 50)).splitlines()[0]
        assert "tensorrt fp16" in first
        assert said in first
    state.update(health({"slide": status()}, shadow={"detector": shadow(compared=0, agreed=0)}))
    assert "as the CPU" not in text_of(render(state, 200, 50)).splitlines()[0]


@pytest.mark.parametrize(("width", "height"), [*SIZES, (40, 12), (50, 14), (72, 18)])
def test_that_this_is_no_medical_device_is_said_once(width, height):
    assert text_of(render(busy_state(), width, height)).count(NOT_A_DEVICE) == 1


def test_without_cells_there_is_no_percentage():
    state = DashboardState()
    state.update(differential({"neutrophil": 0, "lymphocyte": 0}))
    row = next(line for line in text_of(render(state, 120, 30)).splitlines() if "neutrophil" in line)
    assert row.split("neutrophil")[1].split()[:2] == ["0", "–"]
    assert row.endswith("  – │")
    assert "0.0" not in row


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_class_is_shown_with_count_percent_and_limits(width, height):
    rows = text_of(render(busy_state(), width, height)).splitlines()
    for name, count, percent, low_high in [
        ("neutrophil", "57", "57.0", "46–67"),
        ("lymphocyte", "29", "29.0", "20–39"),
        ("monocyte", "7", "7.0", "2–14"),
        ("eosinophil", "3", "3.0", "0–9"),
        ("basophil", "1", "1.0", "0–6"),
        ("unclassified", "3", "3.0", "0–9"),
    ]:
        assert any(
            f"{CLASS_LETTERS[name]} {name}" in row and {count, percent, low_high} <= set(row.split()) for row in rows
        ), name
    screen = "\n".join(rows)
    for text in ("100 white cells", "nucleated red cell seen", "2 = 2.0 per 100", "limits are of sampling only"):
        assert text in screen


def test_a_small_screen_shows_the_essential():
    state = busy_state()
    screen = text_of(render(state, 40, 12)).splitlines()
    assert screen[1] == "● slide 30.0 fps lost 13 100 white cells"
    assert screen[2].startswith("flags: nucleated red cell seen")
    assert [line.split()[1] for line in screen[6:11]] == [*list(FIVE)[:4], "more"]


@pytest.mark.parametrize("state_word", ["ready for review", "incomplete", "do not use"])
def test_the_verdict_stands_first_above_the_table(state_word):
    state = busy_state()
    reasons = (VerdictReason("few_cells", "too few cells: 8 of 100", 8, 100),)
    state.update(differential(FIVE, 3, verdict=Verdict(state=state_word, reasons=reasons), flags=(flag("a flag"),)))
    lines = text_of(render(state, 160, 45)).splitlines()
    (row,) = (i for i, line in enumerate(lines) if f"{state_word}: too few cells: 8 of 100" in line)
    assert "flags: a flag" in lines[row + 1]
    assert "rel. %" in lines[row + 2]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_verdict_count_and_all_flags_are_on_every_screen(width, height):
    """At 80 x 24 too, with more flags than usual and notes that have to give way."""
    state = busy_state()
    reasons = tuple(VerdictReason("r", f"reason {n}: something was measured that speaks", 8, 100) for n in range(6))
    texts = [f"class{n} {n}.5 % ({n} of 100; limits {n}–9; usual 0–1)" for n in range(6)]
    flags = tuple(flag(text, note="slides of which it is true are flagged so in 97 of 100") for text in texts)
    verdict = Verdict(state="do not use", reasons=reasons)
    state.update(differential(FIVE, 3, verdict=verdict, flags=flags, edge=12, not_assessed=["plasma cell"]))
    for picture in (None, False):
        state.picture = picture
        rows = text_of(render(state, width, height)).splitlines()
        top = next(place for place, row in enumerate(rows) if "╭─ differential" in row)
        left = rows[top].index("╭─ differential")
        right = rows[top].index("╮", left)
        panel = " ".join(" ".join(row[left + 1 : right] for row in rows[top + 1 :]).split())
        for text in ("✕ do not use: reason 0", *texts):
            assert text in panel
        assert "100 white cells" in rows[top]


def test_not_assessed_and_the_note_of_the_card_are_shown():
    state = busy_state()
    state.note = "classifier: 4 of 100 wrong on PBC"
    screen = text_of(render(state, 160, 45))
    assert "not assessed: blast" in screen
    assert "limits are of sampling only; classifier: 4 of 100 wrong" in screen


@pytest.mark.parametrize(("width", "height"), [(80, 40), (44, 22)])
def test_what_was_not_seen_and_what_the_limits_are_stand_beside_the_table(width, height):
    state = busy_state()
    not_seen = {"immature granulocyte": 3.62}
    state.update(differential(FIVE, 3, limits_method="confidence-sequence", not_seen=not_seen))
    lines = differential_panel(state, width, height)
    panel = " ".join("".join(segment.text for line in lines for segment in line).replace("│", " ").split())
    assert "0 in 100 cells, at most 3.7 %: immature granulocyte" in panel
    assert "limits are of sampling only, valid at every look" in panel


def test_what_is_in_no_percentage_and_what_size_does_stand_below_the_table():
    state = busy_state()
    classes = {name: share(count, 100) for name, count in FIVE.items()}
    classes["neutrophil"] = msgspec.structs.replace(classes["neutrophil"], percent_size_corrected=59.21)
    bias, ranges = {"neutrophil": 2.21}, {"basophil": "can't be judged", "neutrophil": "not outside"}
    state.update(differential(FIVE, 3, classes=classes, edge=12, smudge=4, size_bias=bias, ranges=ranges))
    lines = differential_panel(state, 80, 40)
    panel = " ".join("".join(segment.text for line in lines for segment in line).replace("│", " ").split())
    assert "in no percentage: 12 cut by an edge, 4 smudge cells" in panel
    assert "neutrophil 59.2 % (+2.2)" in panel
    assert "can't be judged: basophil" in panel
    assert "no flag" not in panel
    state.update(differential(FIVE, 3, ranges=dict.fromkeys(ranges, "not outside")))
    assert "no flag" in text_of(render(state, 160, 45))


def test_losses_are_told_by_reason():
    screen = text_of(render(busy_state(), 120, 35))
    assert "dropped 12 queue full" in screen
    assert "skipped 1 not an image" in screen


def test_nothing_lost_is_said_so():
    state = DashboardState()
    state.update(health({"slide": status(dropped={"queue full": 0})}))
    row = next(line for line in text_of(render(state, 120, 35)).splitlines() if "slide" in line)
    assert "none" in row
    assert "queue full" not in row


def test_a_lost_source_shows_its_state_and_why():
    state = DashboardState()
    state.update(
        health({"scope": status(state="reopening", reopened=3, fps=None, latency_ms=None, detail="timed out")})
    )
    row = next(line for line in text_of(render(state, 120, 30)).splitlines() if "scope" in line)
    assert "reopening" in row
    assert "timed out" in row
    assert row.split("live")[1].split()[:2] == ["–", "–"]


def test_a_long_source_name_is_cropped_and_the_columns_stay():
    state = DashboardState()
    state.update(health({"n" * 90: status(), "short": status()}))
    rows = [line for line in text_of(render(state, 80, 24)).splitlines() if "● open" in line]
    assert len({row.index("● open") for row in rows}) == 1
    assert "…" in rows[0]


def test_of_twenty_sources_those_around_the_selected_one_are_shown_and_the_rest_counted():
    state = many_sources(19)
    state.selected = "camera10"
    screen = text_of(render(state, 120, 35))
    assert "sources 20" in screen
    assert "▸ camera10" in screen
    assert "differential of camera10" in screen
    shown = sum(f"camera{i:02d}" in line and "live" in line for i in range(19) for line in screen.splitlines())
    above, below = (int(screen.split(word)[0].split()[-1]) for word in (" above", " below"))
    assert (shown, above + below) == (5, 15)


def test_tab_goes_through_the_sources_and_around():
    state = many_sources(2)
    seen = []
    for _ in range(4):
        assert state.current is not None
        seen.append(state.current.name)
        state.select_next()
    assert seen == ["slide", "camera00", "camera01", "slide"]


def test_last_cells_are_listed_newest_first():
    state = DashboardState()
    for cell_id in range(5):
        state.update(cell(cell_id))
    rows = [line for line in text_of(render(state, 120, 35)).splitlines() if "seen twice #" in line]
    assert [row.split("#")[1].split()[0] for row in rows] == ["4", "3", "2", "1", "0"]
    assert "93 % neutrophil" in rows[0]


def test_a_cell_whose_class_changed_is_newest_and_tells_what_it_was():
    state = DashboardState()
    state.update(cell(1, "monocyte"))
    state.update(cell(2))
    state.update(cell(1, "lymphocyte"))
    rows = [line for line in text_of(render(state, 160, 35)).splitlines() if "seen twice #" in line]
    assert ["lymphocyte, was monocyte" in rows[0], "#2" in rows[1], len(rows)] == [True, True, 2]


def test_a_cell_that_was_taken_back_is_no_longer_listed():
    state = DashboardState()
    state.update(cell(1))
    state.update(cell(2))
    state.update(cell(1, counted=False, joined_to=2))
    state.update(cell(3, counted=False))
    rows = [line for line in text_of(render(state, 160, 35)).splitlines() if "seen twice #" in line]
    assert ["#2" in row for row in rows] == [True]


def test_an_unclassified_cell_names_its_likeliest_class():
    state = DashboardState()
    state.update(cell(1, "unclassified", top_class="monocyte", class_probabilities={"monocyte": 0.41}))
    assert "41 % unclassified (monocyte?)" in text_of(render(state, 160, 35))


def test_a_cell_unlike_all_others_says_so():
    state = DashboardState()
    reason = "unlike the training cells"
    state.update(cell(1, "unclassified", top_class="monocyte", unclassified_reason=reason))
    assert "unclassified (like no training cell, monocyte?)" in text_of(render(state, 160, 35))


WORDS = {
    "nucleus_shape": "segmented-multilobed",
    "granule_type": "small",
    "granule_colour": "purple",
    "granularity": "yes",
    "nuclear_cytoplasmic_ratio": "low",
    "cytoplasm_colour": "light blue",
    "cytoplasm_texture": "clear",
    "cytoplasm_vacuole": "no",
    "chromatin_density": "densely",
    "cell_size": "big",
    "cell_shape": "round",
}


def in_words(**other):
    words = {name: AttributeValue(value=value, confidence=0.9) for name, value in {**WORDS, **other}.items()}
    return cell(1, attributes=words)


def test_how_a_cell_looks_is_told_in_words():
    assert described(cell(1)) == ""
    assert described(in_words()) == (
        "nucleus segmented multilobed, granules small purple, N:C ratio low, cytoplasm light blue clear, "
        "chromatin dense, big round cell"
    )
    lymphocyte = in_words(
        nucleus_shape="unsegmented-round",
        granule_type="nil",
        granule_colour="nil",
        granularity="no",
        cytoplasm_vacuole="yes",
        chromatin_density="loosely",
    )
    assert described(lymphocyte) == (
        "nucleus round, no granules, N:C ratio low, cytoplasm light blue clear, vacuoles, chromatin loose, "
        "big round cell"
    )
    assert described(cell(1, attributes={"auer_rods": AttributeValue(value="yes", confidence=1)})) == "auer rods yes"


def test_the_newest_cells_are_described_below_their_lines():
    state = DashboardState()
    for number in range(5):
        state.update(msgspec.structs.replace(in_words(), cell_id=number))
    lines = ["".join(span.text for span in line) for line in cells_panel(state, 60, 14, "truecolor", film=False)]
    assert {cell_len(line) for line in lines} == {60}
    assert len(lines) == 14
    places = [place for place, line in enumerate(lines) if "seen twice #" in line]
    described_below = ["nucleus segmented multilobed, granules small" in lines[place + 1] for place in places]
    assert described_below == [True, True, True, False, False]


@pytest.mark.parametrize(("width", "height"), [(200, 50), (160, 45), (120, 35)])
def test_below_pictures_the_newest_cell_is_described(width, height):
    state = busy_state()
    state.update(msgspec.structs.replace(in_words(), cell_id=77))
    screen = render(state, width, height, colours="truecolor")
    assert_fits(screen, width, height)
    assert "#77 nucleus segmented" in text_of(screen)


def test_a_rejected_frame_says_why_and_a_truncated_one_that_there_are_more():
    state = DashboardState()
    state.update(frame(accepted=False, reasons=["blurred"], truncated=True))
    screen = text_of(render(state, 160, 40))
    assert "not counted: blurred" in screen
    assert "more than the detector can tell" in screen


def test_a_new_slide_forgets_the_cells_of_the_last_one_and_a_resumed_one_keeps_them():
    state = busy_state()
    state.update(msgspec.structs.replace(differential({"neutrophil": 1}), run_id="r2"))
    assert len(state.sources["slide"].cells) == 30
    state.update(msgspec.structs.replace(differential({"neutrophil": 1}), session="s2"))
    view = state.sources["slide"]
    assert (len(view.cells), view.frame, view.differential is None) == (0, None, False)


def test_only_the_newest_cells_are_kept():
    state = DashboardState()
    for cell_id in range(200):
        state.update(cell(cell_id))
    assert [message.cell_id for message in state.sources["slide"].newest_cells()[:2]] == [199, 198]
    assert len(state.sources["slide"].cells) == 64


def test_silence_is_told():
    state = DashboardState()
    state.update(health({"slide": status()}), now_ns=1_000_000_000)
    assert "no message" not in text_of(render(state, 120, 35, 5_000_000_000))
    assert "no message for 8 s" in text_of(render(state, 120, 35, 9_000_000_000))


def test_more_classes_than_rows_are_counted_not_dropped():
    state = DashboardState()
    state.update(differential({f"class{i:02d}": i for i in range(15)}))
    screen = text_of(render(state, 40, 12))
    assert "class14" in screen
    hidden = next(line for line in screen.splitlines() if "more classes" in line)
    shown = sum(bool(re.search(r"[A-Z] class\d\d", line)) for line in screen.splitlines())
    assert f"{16 - shown} more classes" in hidden


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(46.7, 66.9, "46–67"), (0.0, 3.62, "0–4"), (None, None, "–"), (2.0, 10.0, "2–10")]
)
def test_limits_are_rounded_outward(low, high, expected):
    assert limits(low, high) == expected


def test_the_bar_ends_at_the_percentage_and_its_whiskers_at_the_limits():
    half = ClassShare(count=50, percent=50.0, low=35.0, high=65.0)
    spans = bar(half, None, 100.0, 20, PLAIN)
    assert span_len(spans) == 20
    assert "".join(text for text, _ in spans) == "███████├─────┤      "


def test_the_usual_range_is_dotted_where_the_bar_leaves_it_open():
    none = ClassShare(count=0, percent=0.0, low=0.0, high=4.0)
    assert "".join(text for text, _ in bar(none, (20.0, 40.0), 100.0, 10, PLAIN)) == "│ ░░░     "


def test_classes_are_listed_as_laboratories_do():
    names = ["unclassified", "basophil", "smudge", "lymphocyte", "neutrophil"]
    assert in_order(names) == ["neutrophil", "lymphocyte", "basophil", "smudge", "unclassified"]


@pytest.mark.parametrize("colour", sorted({*CLASS_COLOURS.values(), *KIND_COLOURS.values(), class_colour("smudge")}))
def test_colours_are_legible_on_black_and_on_white(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert (luminance + 0.05) / 0.05 >= 3.0
    assert 1.05 / (luminance + 0.05) >= 3.0
