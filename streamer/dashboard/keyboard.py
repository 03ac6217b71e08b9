"""What each key does: to the screen, to a run, or to the cell that was chosen. No terminal: names of keys in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from streamer.dashboard.palette import class_letters, in_order
from streamer.dashboard.state import DashboardState, SourceView
from streamer.protocol.requests import AnyCommand, NewSlide, Pause, Reclassify, Resume, SourceState, new_request_id
from streamer.records import UNCLASSIFIED

HELP = (
    ("?", "this help, and away with it"),
    ("p", "pause, and go on"),
    ("n", "a new slide: this one gets its result"),
    ("s", "stop: no more pictures, the result stays"),
    ("q", "quit"),
    ("← →", "walk the last cells, with their pictures"),
    ("c", "give the chosen cell another class"),
    ("Esc", "back"),
    ("Tab, 1-9", "the next source, the source of that number"),
    ("m", "the map of the slide, large"),
    ("f", "the frame of the camera"),
    ("r", "boxes of red cells and platelets too"),
)
SURE = {"n": "a new slide? n once more ends this one", "s": "stop here? s once more ends the count"}
"""Keys that are pressed twice, since they can't be taken back, and what is asked in between."""

Answer = Callable[[SourceState | str], None]
"""Gets the state of the source, or why a command was refused. Any thread."""


class Commands(Protocol):
    """What carries out the commands that keys give."""

    def give(self, command: AnyCommand, answer: Answer) -> None:
        """Have it carried out soon; never waits."""

    def stop(self) -> str | None:
        """End the run; why not, where that can't be."""


class Keyboard:
    """Turns keys into changes of the state and into commands. One thread; answers come from any."""

    def __init__(self, state: DashboardState, commands: Commands | None = None) -> None:
        """`commands`: None: nobody takes any."""
        self.state = state
        self.commands = commands
        self.quit = False
        """Whether q was pressed."""
        self._answers: deque[tuple[str, AnyCommand, SourceState | str]] = deque()

    def press(self, key: str, now_ns: int) -> None:
        """One key: a letter, "tab", "left", "right", "up", "down", "esc" or "enter"."""
        state, sure = self.state, self.state.sure
        state.sure = None
        if key == "q":
            self.quit = True
        elif state.naming:
            self._name(key, now_ns)
        elif key in SURE:
            if sure == key:
                self._command(key, now_ns)
            else:
                state.sure = key
        elif key == "?":
            state.help = not state.help
        elif key == "esc":
            state.help = False
            if state.current is not None:
                state.current.chosen = None
        elif key == "p":
            self._command(key, now_ns)
        elif key == "m":
            state.map = not state.map
        elif key == "f":
            state.picture, state.map = state.map or not state.draws_picture, False
        elif key == "r":
            state.red_cells = not state.red_cells
        elif key == "tab":
            state.select_next()
        elif key in "123456789":
            state.select(int(key) - 1)
        elif key in ("left", "up", "right", "down"):
            state.choose(-1 if key in ("left", "up") else 1)
        elif key in ("c", "enter") and state.current is not None and state.current.chosen is not None:
            state.naming = True

    def take_answers(self, now_ns: int) -> None:
        """Show what became of commands."""
        while self._answers:
            source, command, answer = self._answers.popleft()
            view = self.state.view(source)
            if isinstance(answer, str):
                self.state.tell(answer, now_ns, fault=True)
                continue
            view.paused = answer.paused
            done = {Pause: "paused: p goes on", Resume: "going on", NewSlide: "a new slide has begun"}
            text = done.get(type(command))
            if isinstance(command, Reclassify):
                text = f"cell {command.cell_id} is {command.class_ or 'what its looks say'} now"
            self.state.tell(text or "done", now_ns)

    def _command(self, key: str, now_ns: int) -> None:
        view = self.state.current
        if self.commands is None or view is None:
            self.state.tell("nothing runs yet that takes commands", now_ns, fault=True)
        elif key == "s":
            fault = self.commands.stop()
            self.state.tell(fault or "stopping: what was read is still counted", now_ns, fault=fault is not None)
        elif view.run_id is None:
            self.state.tell(f"{view.name} has sent nothing yet", now_ns, fault=True)
        elif key == "n":
            self._give(NewSlide(id=new_request_id(), run_id=view.run_id, source=view.name))
        else:
            kind = Resume if view.paused else Pause
            self._give(kind(id=new_request_id(), run_id=view.run_id, source=view.name))

    def _name(self, key: str, now_ns: int) -> None:
        """The chosen cell gets the class of that letter; any other key leaves it as it is."""
        self.state.naming = False
        view = self.state.current
        if view is None or view.chosen is None or view.run_id is None:
            return
        name = next((name for letter, name in class_keys(view) if letter == key.upper()), None)
        if name is None:
            return
        if self.commands is None:
            self.state.tell("nothing runs that takes commands", now_ns, fault=True)
            return
        self._give(
            Reclassify(id=new_request_id(), run_id=view.run_id, source=view.name, cell_id=view.chosen, class_=name)
        )

    def _give(self, command: AnyCommand) -> None:
        assert self.commands is not None
        self.commands.give(command, lambda answer: self._answers.append((command.source, command, answer)))


def class_keys(view: SourceView) -> Sequence[tuple[str, str]]:
    """The classes that a cell may be given, each with its key, a capital letter; none is "Q", which quits."""
    listed = () if view.differential is None else view.differential.classes
    letters = {**class_letters(listed), **view.letters()}
    return [(letters[name], name) for name in in_order([*{*listed, UNCLASSIFIED}])]
