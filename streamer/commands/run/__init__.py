"""`leukostream run`: its options, each a field of streamer.config.Config. build: puts the parts of a run together."""

from __future__ import annotations

from typing import Any, get_args

from streamer.commands.options import (
    Group,
    Parser,
    add_dashboard_options,
    add_output_options,
    add_site_option,
    flag,
    number,
    show_defaults,
    whole,
)
from streamer.commands.slide_info import add_slide_options, add_wbc_options
from streamer.config import DEFAULT_CLASSIFIER, Backend, Config, Keep, load_config
from streamer.records import Mode

SOURCE_HELP = (
    "SRC is a camera (0, /dev/video0), a stream (rtsp://…, http://…), a video file, a directory of images, a glob, an "
    "imagezmq sender (imagezmq:tcp://*:5555), the simulated slide (sim:seed=7,cells=200,fps=30,pattern=raster), a "
    "whole-slide image (wsi:FILE,mpp=0.25,overlap=0.2), or a recording (replay:FILE,speed=2,source=NAME)"
)


class Options:
    """The command line's part of the configuration."""

    def __init__(self, config: str | None = None, **given: Any) -> None:
        self.config_file = config
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        self.given = {name: value for name, value in fields.items() if value is not None}
        """What was given, by field of Config."""


def add_options(parser: Parser) -> None:
    parser.usage = f"{parser.prog} --source [NAME=]SRC ... [options]"
    sources = parser.add_argument_group("sources", "where frames come from; several run side by side, a slide each")
    sources.add_argument("--source", action="extend", nargs="+", metavar="[NAME=]SRC", help=SOURCE_HELP)
    sources.add_argument(
        "--mode",
        choices=get_args(Mode),
        help="newest frame first, or no frame lost (default: live for cameras and streams, analysis for the rest)",
    )
    sources.add_argument(
        "--wait", type=number, metavar="SECONDS", help="at most, for a camera or stream that is not on yet"
    )
    _several(sources, "--um-per-px", "[SOURCE=]UM", "micrometres a pixel of the frames")
    sources.add_argument(
        "--rbc-diameter-px", type=number, metavar="PX", help="of red cells in the frames (default: measured)"
    )
    _several(
        sources,
        "--ignore-box",
        "[SOURCE=]X1,Y1,X2,Y2",
        "part of the frames that shows no slide, in pixels; a clock or logo that stays while the slide moves is found",
    )
    slides = parser.add_argument_group(
        "slides", "what is said of the slide of each source; journal and messages have it"
    )
    add_slide_options(slides, "[SOURCE=]", action="extend", nargs="+")
    add_wbc_options(slides, "[SOURCE=]", action="extend", nargs="+")
    models = parser.add_argument_group("models", "names in `leukostream models`, or files; for all sources or one")
    _several(models, "--detector", "[SOURCE=]NAME|FILE", "finds the cells")
    _several(
        models,
        "--classifier",
        "[SOURCE=]NAME|FILE",
        f"names the white cells; auto: the detector's own classes where it has them, else {DEFAULT_CLASSIFIER}; none",
    )
    add_site_option(models)
    _several(models, "--segmenter", "[SOURCE=]NAME|FILE", "measures nucleus and cytoplasm of white cells; none")
    models.add_argument("--backend", choices=get_args(Backend), help="what runs them")
    models.add_argument(
        "--inference",
        metavar="ENDPOINT,...|ray",
        help="leukostream serve elsewhere, ray for those of leukostream fleet, or kserve://HOST:PORT, runs them while"
        " it answers; else this machine does",
    )
    models.add_argument("--server-key", metavar="FILE", help="public key of the inference servers, with --keys")
    models.add_argument("--batch", type=whole, metavar="N", help="frames a call of the detector (default: 1 on a CPU)")
    models.add_argument(
        "--long-side-px", type=whole, metavar="PX", help="of the detector's input (default: by the size of red cells)"
    )
    flag(models, "--explain", "say where on each cell the evidence for its class lies")
    flag(models, "--every-frame", "look at frames too that show nothing new of the slide")
    models.add_argument(
        "--audit",
        type=number,
        metavar="PERCENT",
        help="of the frames that show nothing new, those looked at as a proof (default 2)",
    )
    models.add_argument(
        "--budget",
        type=number,
        metavar="PERCENT",
        help="of the machine, for the models of cameras at most; frames with something new are left out beyond it",
    )
    counting = parser.add_argument_group("counting", "what counts, and when it is enough")
    counting.add_argument(
        "--min-score", type=number, metavar="F", help="lowest score published (default: the one that counts)"
    )
    counting.add_argument("--stop-at", type=whole, metavar="N", help="end when N white cells were counted")
    counting.add_argument(
        "--stop-at-precision",
        type=number,
        metavar="PERCENT",
        help="end when the 95 %% limits of every class are within +/- so many percentage points",
    )
    keeping = parser.add_argument_group("keeping", "files that outlast the run")
    keeping.add_argument("--journal", metavar="FILE", help="keep everything that is seen, so that no count is lost")
    flag(keeping, "--resume", "go on with the sessions of the journal")
    keeping.add_argument("--record", metavar="FILE", help="keep the frames and the messages, to play them again")
    keeping.add_argument("--record-as", choices=get_args(Keep), help="frames without loss, or small, as JPEG")
    keeping.add_argument("--report", metavar="FILE.html", help="write a page to read and print at the end")
    add_output_options(parser)
    add_dashboard_options(parser)
    machine = parser.add_argument_group("machine", "how much of it a run takes")
    machine.add_argument(
        "--workers", type=whole, metavar="N", help="frames analysed side by side (default: one a core, at most 4)"
    )
    machine.add_argument(
        "--threads",
        type=whole,
        metavar="N",
        help="of one model call (default: a source's share of the cores, at most 4)",
    )
    file = parser.add_argument_group("configuration", "the command line wins over the file")
    file.add_argument("--config", metavar="FILE.toml", help="these options as keys of a file: stop_at = 200")
    show_defaults(parser, Config())


def main(options: Options) -> int:
    from streamer.commands.run.build import run  # here, so that help and misspelt options are answered at once

    return run(load_config(options.config_file, options.given))


def _several(group: Group, name: str, metavar: str, text: str) -> None:
    group.add_argument(name, action="extend", nargs="+", metavar=metavar, help=text)
