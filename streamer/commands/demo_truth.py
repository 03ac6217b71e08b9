"""What the demo counted beside what really lies on its simulated slide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from streamer.dashboard.words import number
from streamer.protocol.messages import AnyMessage, DifferentialMessage, FrameMessage
from streamer.sources import parse_source
from streamer.sources.simulated import SlideParameters, VirtualSlide

MOST_OF_A_CELL_PX = 80.0
"""White cells of the simulated slide are some 90 px wide: one of which less is seen can't be named."""


class Truth:
    """A sink that knows what lies on the simulated slide, and compares the count of its first session with it."""

    def __init__(self, source: str) -> None:
        """`source`: the simulated slide, as --source has it."""
        self._slide = VirtualSlide(SlideParameters.parse(parse_source(source).target))
        self._session: str | None = None
        self._frames: list[int] = []
        self._final: DifferentialMessage | None = None

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None:
        self._session = self._session or message.session
        if message.session != self._session:
            return
        if isinstance(message, FrameMessage) and message.accepted:
            self._frames.append(message.frame_id)
        elif isinstance(message, DifferentialMessage) and message.final:
            self._final = message

    def close(self) -> None: ...

    def lines(self) -> Iterator[str]:
        """The comparison, in words; none where nothing was counted."""
        final = self._final
        if final is None or not self._frames:
            return
        whole = len(self._slide.white_cells_seen(self._frames))
        nearly = self._slide.white_cells_seen(self._frames, beyond_px=MOST_OF_A_CELL_PX).values()
        true = Counter(cell.class_name for cell in nearly)
        yield (
            f"the slide is simulated, so the truth is known: {whole} white cells lay whole in the frames used, "
            f"{number(final.total)} were counted"
        )
        shares = {name: share for name, share in final.classes.items() if share.count or true[name]}
        percents = {name: 100 * true[name] / max(1, true.total()) for name in shares}
        within = sum(
            share.low is not None and share.high is not None and share.low <= percents[name] <= share.high
            for name, share in shares.items()
        )
        each = ", ".join(
            f"{name} {percents[name]:.1f} and {number(share.percent, 1)}" for name, share in shares.items()
        )
        yield f"per cent, true and counted: {each}"
        yield f"the true percentage lies within the 95 % limits for {within} of {len(shares)} classes"
