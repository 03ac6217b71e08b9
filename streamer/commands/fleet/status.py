"""`fleet status`: servers and microscopes as tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from engines.base import LeukostreamError, printable
from streamer.commands.fleet.metrics import write_targets
from streamer.commands.output import remark
from streamer.fleet.microscopes import Microscope, Microscopes
from streamer.fleet.servers import ServerRow, rows_of
from streamer.inference.fleet_watch import AUTO, FleetWatch

if TYPE_CHECKING:
    from streamer.commands.fleet import Options

HEARD_WITHIN_S = 3.0
"""A streamer says once a second how it does, and a subscription takes a moment."""

WIDE = 120

TONES = {
    **{"ready for review": "green", "incomplete": "yellow", "do not use": "red"},
    **{"ready": "green", "open": "green", "finished": "green"},
    **{"silent": "red", "failed": "red", "no answer": "red", "stopped": "yellow", "ending": "yellow"},
}


def print_status(options: Options) -> int:
    """1 where there is neither a fleet nor a microscope that answers."""
    console = Console(highlight=False)
    watch = FleetWatch(options.address or AUTO, "--address")
    try:
        with Microscopes(options.endpoints, keys=options.keys, server_key=options.server_key) as microscopes:
            if options.endpoints:
                microscopes.look(HEARD_WITHIN_S, until_all=True)
            seen = list(microscopes.rows())
        state = watch.wait()
        fault = watch.fault
    finally:
        watch.close()
    if options.targets is not None:
        if state is None:
            raise LeukostreamError(f"--targets {options.targets}: {fault or 'got no fleet, expected one'}")
        write_targets(options.targets, rows_of(state))
    if state is not None:
        console.print(servers_table(rows_of(state), console.width))
        spec = state.spec
        room = f"{spec.least}" if spec.least == spec.most else f"{spec.least} to {spec.most}"
        console.print(f"{state.wanted} wanted of {room}, generation {spec.generation}", style="dim")
        if state.fault is not None:
            remark(f"a server could not begin: {state.fault}")
    elif options.address is not None or not options.endpoints:
        if not options.endpoints:
            raise LeukostreamError(fault or f"--address {options.address or AUTO}: got no answer, expected one")
        remark(fault or f"--address {options.address}: got no answer, expected one")
    if options.endpoints:
        console.print(microscopes_table(seen, console.width))
    heard = any(one.source is not None for one in seen)
    return 0 if state is not None or heard else 1


def servers_table(rows: Sequence[ServerRow], width: int = WIDE) -> Table:
    """`width`: of the terminal, in characters; a narrow one leaves out what is rarely asked for."""
    names = ["Server", "Node", "State", "Release", "Models by hash", "Answers/s", "Waiting", "Queue age ms", "Faults"]
    table = _Table(names, () if width >= WIDE else ("Node", "Models by hash"))
    for row in rows:
        models = ", ".join(f"{name} {sha256[:8]}" for name, sha256 in row.models)
        table.add(
            *(_text(row.endpoint or "–"), _text(row.node), _toned(row.state), _text(row.release), _text(models)),
            *(_number(row.answers_per_s, 1), str(row.waiting), _number(row.queue_age_ms, 0), str(row.faults)),
        )
    return table.made


def microscopes_table(rows: Sequence[Microscope], width: int = WIDE) -> Table:
    """As `servers_table`."""
    names = ["Microscope", "Slide", "State", "Frames/s", "Behind s", "p99 ms", "Dropped", "Cells", "Verdict"]
    names += ["Models", "Servers", "Local"]
    table = _Table(names, () if width >= WIDE else ("Slide", "Models", "Servers", "Dropped", "Local"))
    for row in rows:
        table.add(
            *(_text(row.source or row.endpoint), _text(row.slide or ""), _toned(row.state)),
            *(_number(row.frames_per_s, 1), _number(row.behind_s, 1), _number(row.latency_p99_ms, 0)),
            *(str(row.dropped), "–" if row.white_cells is None else str(row.white_cells), _toned(row.verdict or "–")),
            *(_text(row.models), _text(row.servers)),
            "" if row.local_share is None else f"{row.local_share:.0%}",
        )
    return table.made


WRAPPED = ("Microscope", "Server", "Slide", "Models", "Models by hash")
"""Columns that take several lines rather than cost others their ends."""

NUMBERS = (
    "Answers/s",
    "Waiting",
    "Queue age ms",
    "Faults",
    "Frames/s",
    "Behind s",
    "p99 ms",
    "Dropped",
    "Cells",
    "Local",
)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table without some of its columns."""

    columns: Sequence[str]
    left_out: Collection[str]
    made: Table = field(default_factory=lambda: Table(box=None, pad_edge=False, header_style="bold"))

    def __post_init__(self) -> None:
        for column in self.columns:
            if column not in self.left_out:
                justify: JustifyMethod = "right" if column in NUMBERS else "left"
                self.made.add_column(column, justify=justify, no_wrap=column not in WRAPPED, overflow="fold")

    def add(self, *cells: Text | str) -> None:
        kept = (cell for column, cell in zip(self.columns, cells, strict=True) if column not in self.left_out)
        self.made.add_row(*kept)


def _text(text: str) -> Text:
    """What others say of themselves: no markup, no control characters."""
    return Text(printable(text))


def _toned(text: str) -> Text:
    return Text(printable(text), style=TONES.get(text, ""))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
