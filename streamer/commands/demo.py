"""`leukostream demo`: the simulated slide, paced like a camera where somebody watches, else as fast as it goes; in the
end what was counted stands beside what really lies there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from streamer.commands.options import Parser, add_dashboard_options, add_output_options
from streamer.commands.output import say
from streamer.commands.run import Options
from streamer.config import load_config
from streamer.dashboard.words import number
from streamer.protocol.messages import AnyMessage, DifferentialMessage, FrameMessage
from streamer.sources import parse_source
from streamer.sources.simulated import SlideParameters, VirtualSlide

SOURCE = "slide=sim:seed=7,cells=200,paced=1"
SOURCE_UNWATCHED = "slide=sim:seed=7,cells=100"
"""Where nobody watches, the slide is smaller and analysed as fast as it goes."""

ENDPOINT = "tcp://127.0.0.1:*"
"""Any free port of this machine; the demo says which."""

LIMIT_S = 45.0
"""After this the demo ends where output is no terminal; a slow machine shows less of the slide."""

LINGER_S = 5.0

MOST_OF_A_CELL_PX = 80.0
"""White cells of the simulated slide are some 90 px wide: one of which less is seen can't be named."""


def add_options(parser: Parser) -> None:
    add_output_options(parser)
    add_dashboard_options(parser)


def main(options: Options) -> int:
    from streamer.commands.run.build import run
    from streamer.dashboard import is_usable

    watched = is_usable(sys.stdout) and options.given.get("dashboard") is not False
    source = SOURCE if watched else SOURCE_UNWATCHED
    overrides: dict[str, Any] = {
        "source": (source,),
        "mode": "analysis",  # a slow machine takes longer, and loses nothing
        "publish": ENDPOINT,
        "linger": LINGER_S,
        **options.given,
    }
    if not watched:
        overrides["stop_after_s"] = LIMIT_S
    config = load_config(None, overrides)
    truth = Truth(VirtualSlide(SlideParameters.parse(parse_source(source).target)))
    status = run(config, [truth])
    for line in truth.lines():
        say(line, sys.stderr if config.jsonl == "-" else sys.stdout)
    return status


class Truth:
    """A sink that knows what lies on the simulated slide, and compares the count of its first session with it."""

    def __init__(self, slide: VirtualSlide) -> None:
        self._slide = slide
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
