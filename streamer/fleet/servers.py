"""The inference servers of a fleet as rows, for a table or a page."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.inference.fleet_plan import FleetState, Member


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRow:
    endpoint: str | None
    """None: it has not begun yet."""
    metrics: str | None = None
    """HOST:PORT for Prometheus; None: none are served."""
    node: str = ""
    process: int | None = None
    state: str
    """starting, ready, ending, or silent: it does not report."""
    release: str = ""
    """Of leukostream."""
    models: tuple[tuple[str, str], ...] = ()
    """Name and SHA-256 of each."""
    answers_per_s: float = 0.0
    waiting: int = 0
    queue_age_ms: float = 0.0
    answered: int = 0
    faults: int = 0
    """Requests that came to nothing, for whatever reason."""


def rows_of(state: FleetState) -> list[ServerRow]:
    return [_row(one, state.now_s) for one in sorted(state.members, key=lambda one: one.started_s)]


def _row(member: Member, now_s: float) -> ServerRow:
    report = member.report
    if report is None:
        return ServerRow(endpoint=None, state="starting")
    status = report.status
    if member.told_to_end_s is not None or status.draining:
        state = "ending"
    else:
        state = "ready" if member.answers(now_s) else "silent"
    return ServerRow(
        endpoint=report.endpoint,
        metrics=report.metrics,
        node=report.node,
        process=report.process,
        state=state,
        release=status.release,
        models=tuple((model.name, model.sha256) for model in status.models),
        answers_per_s=member.rate,
        waiting=status.waiting,
        queue_age_ms=status.queue_age_ms,
        answered=status.answered,
        faults=sum(status.faults.values()),
    )
