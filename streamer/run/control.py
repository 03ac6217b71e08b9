"""Commands to a running pipeline: what each does to a source, and its place in the journal.

All of it on the publishing thread, between two frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec

from streamer.counting.review_events import CorrectionFault, check_reviewer, check_text
from streamer.journal import Emission, GivenCommand
from streamer.protocol.messages import NEW_SLIDE
from streamer.protocol.requests import (
    AnyCommand,
    Comment,
    Confirm,
    NewSlide,
    Pause,
    Reclassify,
    RequestRefused,
    Resume,
    SourceState,
    StopAt,
    encode_request,
    kind_of,
)
from streamer.records import Reclassification, SlideInfo
from streamer.run.lane import Lane
from streamer.run.session import SlideSession


class CommandExecutor:
    """Carries out commands on the lanes of a pipeline."""

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        send: Callable[[Sequence[Emission]], None],
        next_session: Callable[[str, SlideInfo], SlideSession] | None,
        count_placed: Callable[[str], None],
    ) -> None:
        """`send` publishes what a command makes; `next_session` gets what is known of the slide, and is
        None where a run has one slide for each source. `count_placed` counts what was placed of a
        source that is held."""
        self._lanes = lanes
        self._send = send
        self._next_session = next_session
        self._count_placed = count_placed

    def states(self) -> dict[str, SourceState]:
        """What commands have done, by source."""
        return {name: lane.state() for name, lane in self._lanes.items()}

    def execute(self, command: AnyCommand, *, by: str) -> SourceState:
        """Carry out a command and journal it. RequestRefused where it makes no sense."""
        lane = self._lanes.get(command.source)
        if lane is None:
            raise RequestRefused(
                "unknown source", f"got source {command.source!r}, expected one of {', '.join(self._lanes)}"
            )
        session, given = lane.session, given_command(command, by)
        try:
            if lane.ring.closed:
                raise RequestRefused("not possible", f"source {lane.name} has ended")
            _check_words(command)
            if isinstance(command, Reclassify | Confirm):
                self._name_cells(lane, command, given)
            else:
                self._carry_out(lane, command)
                session.note(given)
        except RequestRefused as refusal:
            session.note(replace(given, refused=refusal.code, reason=str(refusal)))
            raise
        return lane.state()

    def recall(self, command: AnyCommand, *, by: str) -> SourceState | None:
        """The state of its source, where the journal has this very command as carried out."""
        lane = self._lanes.get(command.source)
        if lane is None or lane.session.recalls(by, command.id) != encode_request(command).decode():
            return None
        return lane.state()

    def _name_cells(self, lane: Lane, command: Reclassify | Confirm, given: GivenCommand) -> None:
        confirmed = isinstance(command, Confirm)
        cell_ids = command.cell_ids if isinstance(command, Confirm) else [command.cell_id]
        reclassifications = [
            Reclassification(cell_id, command.class_, command.subclass, confirmed)
            for cell_id in dict.fromkeys(cell_ids)
        ]
        for one in reclassifications:
            fault = lane.session.count.fault_of(one)
            if fault is not None:
                raise RequestRefused("not possible", fault)
        self._send(lane.session.name_cells(reclassifications, given))

    def _carry_out(self, lane: Lane, command: Pause | Resume | StopAt | NewSlide | Comment) -> None:
        if isinstance(command, Comment):
            if command.cell_id is not None and not lane.session.count.is_counted(command.cell_id):
                raise RequestRefused("not possible", f"got cell {command.cell_id}, expected one that is counted")
        elif isinstance(command, Pause | Resume):
            if lane.gate.paused == isinstance(command, Pause):
                raise RequestRefused(
                    "not possible", f"source {lane.name} is {'' if lane.gate.paused else 'not '}paused already"
                )
            (lane.gate.pause if isinstance(command, Pause) else lane.gate.resume)()
        elif isinstance(command, StopAt):
            counted = lane.session.count.total
            if command.cells is not None and command.cells <= counted:
                raise RequestRefused(
                    "not possible", f"got {command.cells} cells, expected more than the {counted} counted"
                )
            lane.stop_at = command.cells
        else:
            self._begin_slide(lane, command.slide)

    def _begin_slide(self, lane: Lane, said: SlideInfo | msgspec.UnsetType) -> None:
        if self._next_session is None:
            raise RequestRefused("not possible", "this run has one slide for each source")
        lane.placer.hold()
        try:
            self._count_placed(lane.name)
            self._send(lane.session.finish("finished", NEW_SLIDE))
            slide = next_slide(lane.session.slide, SlideInfo() if said is msgspec.UNSET else said)
            session = self._next_session(lane.name, slide)
            session.go_on_from(lane.session)
            lane.session = session
            lane.placer.begin(session)
        finally:
            lane.placer.release()


def next_slide(before: SlideInfo, said: SlideInfo) -> SlideInfo:
    """What is known of a slide that follows another: what is said of it, and how both were stained and looked at."""
    kept = ("operator", "instrument", "stain", "magnification")
    same = {name: getattr(before, name) for name in kept if getattr(said, name) is None}
    return msgspec.structs.replace(said, um_per_px=before.um_per_px, **same)


def _check_words(command: AnyCommand) -> None:
    """RequestRefused for initials that are none, and for a comment that can't be kept."""
    try:
        if isinstance(command, Reclassify | Confirm | Comment) and command.reviewer is not None:
            check_reviewer(command.reviewer)
        if isinstance(command, Comment):
            check_text(command.text, "comment")
    except CorrectionFault as fault:
        raise RequestRefused("not possible", str(fault)) from None


def given_command(command: AnyCommand, by: str) -> GivenCommand:
    """A command as the journal keeps it."""
    return GivenCommand(command.run_id, by, command.id, kind_of(command), encode_request(command).decode())
