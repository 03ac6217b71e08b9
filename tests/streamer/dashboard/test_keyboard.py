"""What keys do, without a terminal: to the screen, to a run, to the chosen cell."""

from __future__ import annotations

import pytest

from streamer.dashboard import Answer, DashboardState, render
from streamer.dashboard.keyboard import HELP, SURE, Keyboard, class_keys
from streamer.dashboard.terminal import keys_of
from streamer.protocol.requests import AnyCommand, NewSlide, Pause, Reclassify, Resume, SourceState
from tests.streamer.dashboard.dashboard_cases import FIVE, busy_state, cell, differential, end, health, status
from tests.streamer.dashboard.test_render import text_of


class Run:
    """Keeps the commands that it is given, and refuses them where it is told to."""

    def __init__(self, refusal: str | None = None) -> None:
        self.given: list[AnyCommand] = []
        self.stopped = 0
        self.refusal = refusal

    def give(self, command: AnyCommand, answer: Answer) -> None:
        self.given.append(command)
        paused = isinstance(command, Pause)
        state = SourceState(session="s1", paused=paused, stop_at=None, white_cells=7)
        answer(state if self.refusal is None else self.refusal)

    def stop(self) -> str | None:
        self.stopped += 1
        return self.refusal


def pressed(keyboard: Keyboard, *keys: str) -> None:
    for key in keys:
        keyboard.press(key, 0)
    keyboard.take_answers(0)


def screen(state: DashboardState, width: int = 80, height: int = 24) -> str:
    return text_of(render(state, width, height, 0))


def test_p_pauses_and_goes_on() -> None:
    state, run = busy_state(), Run()
    keyboard = Keyboard(state, run)
    pressed(keyboard, "p")
    assert "‖ paused" in screen(state)
    pressed(keyboard, "p")
    assert [type(command) for command in run.given] == [Pause, Resume]
    assert {(command.run_id, command.source) for command in run.given} == {("r1", "slide")}
    assert len({command.id for command in run.given}) == 2
    assert "paused" not in screen(state)


@pytest.mark.parametrize("key", SURE)
def test_what_can_not_be_taken_back_is_asked_for_twice(key: str) -> None:
    state, run = busy_state(), Run()
    keyboard = Keyboard(state, run)
    pressed(keyboard, key)
    assert SURE[key] in screen(state)
    pressed(keyboard, "m", key)  # another key in between: not sure
    assert (run.given, run.stopped) == ([], 0)
    pressed(keyboard, key)
    assert (len(run.given), run.stopped) == ((1, 0) if key == "n" else (0, 1))
    assert all(isinstance(command, NewSlide) for command in run.given)


def test_arrows_walk_the_cells_from_the_newest_and_c_gives_another_class() -> None:
    state, run = busy_state(), Run()
    keyboard = Keyboard(state, run)
    view = state.sources["slide"]
    walked = []
    for key in ("right", "right", "right", "left", "left", "left"):
        pressed(keyboard, key)
        walked.append(view.chosen)
    assert walked == [29, 28, 27, 28, 29, 29]
    assert "cell 29" in screen(state)
    assert "1 of the last 30" in screen(state)
    pressed(keyboard, "c")
    letters = dict(class_keys(view))
    assert letters["N"] == "neutrophil"
    assert all(name in screen(state) for name in letters.values())
    pressed(keyboard, "E")
    (command,) = run.given
    assert isinstance(command, Reclassify)
    assert (command.cell_id, command.class_) == (29, "eosinophil")
    assert "cell 29 is eosinophil now" in screen(state)
    pressed(keyboard, "esc")
    assert "cell 29  " not in screen(state)


@pytest.mark.parametrize("key", ["esc", "7", "left"])
def test_a_cell_keeps_its_class_where_no_class_has_that_key(key: str) -> None:
    state, run = busy_state(), Run()
    keyboard = Keyboard(state, run)
    pressed(keyboard, "left", "c", key)
    assert run.given == []
    assert not state.naming


def test_q_quits_also_while_a_class_is_asked_for() -> None:
    keyboard = Keyboard(busy_state(), Run())
    pressed(keyboard, "left", "c", "q")
    assert keyboard.quit


def test_a_chosen_cell_stays_while_others_come_and_goes_with_its_slide() -> None:
    state = busy_state()
    keyboard = Keyboard(state)
    pressed(keyboard, "right", "right")
    state.update(cell(99))
    view = state.sources["slide"]
    assert view.chosen == 28
    pressed(keyboard, "left")
    assert view.chosen == 29
    state.update(cell(29, counted=False))
    assert view.chosen is None
    pressed(keyboard, "left")
    state.update(end("finished", "new slide", session="s2"))
    assert view.chosen is None


def test_a_refusal_is_shown_and_changes_nothing() -> None:
    state = busy_state()
    keyboard = Keyboard(state, Run("source slide has ended"))
    pressed(keyboard, "p")
    assert "source slide has ended" in screen(state)
    assert not state.sources["slide"].paused
    pressed(keyboard, "s", "s")
    assert "source slide has ended" in screen(state)


def test_without_a_run_keys_say_that_nothing_takes_commands() -> None:
    state = busy_state()
    pressed(Keyboard(state), "p")
    assert "nothing runs yet that takes commands" in screen(state)


def test_numbers_and_tab_show_the_sources() -> None:
    state = DashboardState()
    for name in ("a", "b", "c"):
        state.update(differential(FIVE, source=name))
    state.update(health({name: status() for name in ("a", "b", "c")}, source="a"))
    keyboard = Keyboard(state)
    shown = []
    for key in ("3", "tab", "2", "9"):
        pressed(keyboard, key)
        assert state.current is not None
        shown.append(state.current.name)
    assert shown == ["c", "a", "b", "b"]


def test_the_help_names_every_key_and_fits_the_smallest_screen_with_panels() -> None:
    state = busy_state()
    pressed(Keyboard(state), "?")
    text = screen(state)
    assert all(line in text for _, line in HELP)
    pressed(Keyboard(state), "?")
    assert "100 white cells" in screen(state)


def test_what_a_terminal_sends_is_read_as_keys_and_its_late_answers_are_not() -> None:
    typed = "a\x1b[A\x1b[?62;4cq\x1b\t?\x1bOC\x1b_Gi=31;OK\x1b\\\r\x1b[6;20;10t9"
    assert keys_of(typed) == ["a", "up", "q", "esc", "tab", "?", "right", "enter", "9"]
