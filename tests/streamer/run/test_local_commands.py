"""Commands from the keyboard of a run: carried out on the publishing thread, in the order in which they were given."""

from __future__ import annotations

from streamer.protocol.requests import AnyCommand, Pause, RequestRefused, Resume, SourceState
from streamer.run.local_commands import BY, LocalCommands

STATE = SourceState(session="s1", paused=True, stop_at=None, white_cells=3)


class Controls:
    def __init__(self, refusal: str | None = None) -> None:
        self.done: list[tuple[AnyCommand, str]] = []
        self.refusal = refusal

    def execute(self, command: AnyCommand, *, by: str) -> SourceState:
        if self.refusal is not None:
            raise RequestRefused("not possible", self.refusal)
        self.done.append((command, by))
        return STATE


PAUSE, RESUME = (kind(id=kind.__name__, run_id="r1", source="cam") for kind in (Pause, Resume))


def test_commands_wait_until_they_are_served() -> None:
    commands, controls = LocalCommands(lambda: None), Controls()
    answers: list[SourceState | str] = []
    commands.give(PAUSE, answers.append)
    commands.serve()  # the pipeline is not there yet
    assert answers == []
    commands.controls = controls
    commands.give(RESUME, answers.append)
    assert controls.done == []
    commands.serve()
    assert controls.done == [(PAUSE, BY), (RESUME, BY)]
    assert answers == [STATE, STATE]
    commands.serve()
    assert len(controls.done) == 2


def test_a_refusal_is_answered_in_words() -> None:
    commands = LocalCommands(lambda: None)
    commands.controls = Controls("source cam has ended")
    answers: list[SourceState | str] = []
    commands.give(PAUSE, answers.append)
    commands.serve()
    assert answers == ["source cam has ended"]


def test_stop_ends_the_run() -> None:
    stopped: list[bool] = []
    assert LocalCommands(lambda: stopped.append(True)).stop() is None
    assert stopped == [True]
