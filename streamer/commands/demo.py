"""`leukostream demo`: the simulated slide, paced like a camera where somebody watches, else as fast as it goes; in the
end what was counted stands beside what really lies there."""

from __future__ import annotations

import sys
from typing import Any

from streamer.commands.options import Parser, add_dashboard_options, add_output_options
from streamer.commands.output import say
from streamer.commands.run import Options
from streamer.config import load_config

SOURCE = "slide=sim:seed=7,cells=200,paced=1"
SOURCE_UNWATCHED = "slide=sim:seed=7,cells=100"
"""Where nobody watches, the slide is smaller and analysed as fast as it goes."""

ENDPOINT = "tcp://127.0.0.1:*"
"""Any free port of this machine; the demo says which."""

LIMIT_S = 45.0
"""After this the demo ends where output is no terminal; a slow machine shows less of the slide."""

LINGER_S = 5.0


def add_options(parser: Parser) -> None:
    add_output_options(parser)
    add_dashboard_options(parser)


def main(options: Options) -> int:
    from streamer.commands.demo_truth import Truth
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
    truth = Truth(source)
    status = run(config, [truth])
    for line in truth.lines():
        say(line, sys.stderr if config.jsonl == "-" else sys.stdout)
    return status
