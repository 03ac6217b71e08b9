"""The command line. Imports of a command's own machinery are inside its function, so that every command starts fast.

Exit status: 0 done, 1 the work failed, 2 bad usage; both with one line on standard error.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from engines.base import LeukostreamError, UsageError
from streamer import __version__

Options = dict[str, Any]
Command = Callable[[Options], int]

RESEARCH_USE = "Research use only: not a medical device."

SRC_HELP = (
    "[NAME=]SRC; SRC is a camera (0, /dev/video0), a stream (rtsp://…, http://…), a video file, a directory of "
    "images, a glob, an imagezmq sender (imagezmq:tcp://*:5555), the simulated slide "
    "(sim:seed=7,cells=200,fps=30,pattern=raster), or a recording (replay:FILE,speed=2,source=NAME)"
)


CONTROLS = {
    "status": "what commands have done so far, and whether you may give any",
    "pause": "analyse no more frames",
    "resume": "go on after a pause",
    "new-slide": "end the session with its final differential and begin another one",
    "stop-at": "end when so many white cells are counted",
    "reclassify": "give a counted cell the class that you say it has",
}


class _Parser(argparse.ArgumentParser):
    """argparse, but a fault is our UsageError: one line, and near names for a misspelt option or command."""

    def error(self, message: str) -> NoReturn:
        options = [option for action in self._actions for option in action.option_strings]
        for word in message.split():
            near = difflib.get_close_matches(word, options, n=1, cutoff=0.75) if word.startswith("--") else []
            if near and word not in options:
                message += f"; did you mean {near[0]}?"
                break
        raise UsageError(f"{message}; see: {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="leukostream",
        description=f"Live white-cell differential of a stained blood smear. {RESEARCH_USE}",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"leukostream {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="analyse sources", allow_abbrev=False)
    run.set_defaults(call=_run)
    run.add_argument("--source", action="extend", nargs="+", metavar="[NAME=]SRC", help=SRC_HELP)
    run.add_argument("--mode", choices=("live", "analysis"), help="newest frame first, or no frame lost")
    model = "[SOURCE=]NAME|FILE"
    run.add_argument("--detector", action="extend", nargs="+", metavar=model, help="for all sources, or the one named")
    run.add_argument("--classifier", action="extend", nargs="+", metavar=model, help='likewise; or "auto", "none"')
    run.add_argument(
        "--segmenter", action="extend", nargs="+", metavar=model, help="measure nucleus and cytoplasm of white cells"
    )
    run.add_argument(
        "--um-per-px", action="extend", nargs="+", metavar="[SOURCE=]UM", help="micrometres a pixel of the frames"
    )
    run.add_argument(
        "--explain", action="store_true", default=None, help="say where on each cell the evidence for its class lies"
    )
    run.add_argument("--backend", choices=("auto", "onnxruntime", "tensorrt"))
    run.add_argument("--batch", type=int, metavar="N", help="frames of one run of the detector")
    run.add_argument("--min-score", type=float, metavar="F", help="lowest score published")
    run.add_argument("--long-side-px", type=int, metavar="PX", help="longer side of the detector's input")
    run.add_argument(
        "--rbc-diameter-px", type=float, metavar="PX", help="of red cells in the frames, where it is known"
    )
    run.add_argument("--stop-at", type=int, metavar="N", help="end when N white cells were counted")
    run.add_argument(
        "--stop-at-precision",
        type=float,
        metavar="PERCENT",
        help="end when the 95 %% limits of every class are within +/- so many percentage points",
    )
    _add_output_options(run)
    run.add_argument("--journal", metavar="FILE", help="keep everything that is seen, so that no count is lost")
    run.add_argument("--resume", action="store_true", default=None, help="go on with the sessions of the journal")
    run.add_argument("--record", metavar="FILE", help="keep the frames and the messages, to play them again")
    run.add_argument(
        "--record-as", choices=("got", "jpeg"), help="keep frames without loss (the default), or small, as JPEG"
    )
    run.add_argument("--workers", type=int, metavar="N", help="frames analysed side by side")
    run.add_argument("--threads", type=int, metavar="N", help="threads of one model call")
    run.add_argument("--config", metavar="FILE.toml", help="the same options as keys of a file")

    demo = commands.add_parser("demo", help="count the simulated slide", allow_abbrev=False)
    demo.set_defaults(call=_demo)
    _add_output_options(demo)

    watch = commands.add_parser("watch", help="the dashboard of a streamer elsewhere", allow_abbrev=False)
    watch.set_defaults(call=_watch)
    watch.add_argument("endpoint", metavar="ENDPOINT")
    _add_key_options(watch)
    _add_dashboard_options(watch)

    subscribe = commands.add_parser("subscribe", help="print messages as JSON Lines", allow_abbrev=False)
    subscribe.set_defaults(call=_subscribe)
    subscribe.add_argument("endpoint", metavar="ENDPOINT")
    _add_key_options(subscribe)
    subscribe.add_argument("--topic", default="", metavar="PREFIX", help="for example: differential")
    subscribe.add_argument("--count", type=_positive, metavar="N", help="end after N messages")

    recount = commands.add_parser("recount", help="count a journal again", allow_abbrev=False)
    recount.set_defaults(call=_recount)
    recount.add_argument("journal", metavar="JOURNAL")

    export = commands.add_parser("export", help="cells, boxes and pictures of a journal", allow_abbrev=False)
    export.set_defaults(call=_export)
    export.add_argument("journal", metavar="JOURNAL")
    export.add_argument("--format", choices=("csv", "coco", "json"), required=True)
    export.add_argument("-o", dest="out", metavar="FILE|-", required=True)
    export.add_argument("--pictures", metavar="DIR", help="write the cells' pictures there")

    play = commands.add_parser("play", help="publish the messages of a recording again", allow_abbrev=False)
    play.set_defaults(call=_play)
    play.add_argument("recording", metavar="RECORDING")
    play.add_argument("--publish", metavar="ENDPOINT", required=True, help="for example tcp://127.0.0.1:5555")
    play.add_argument("--speed", default="1", metavar="N|max", help="times as fast as they were published")
    play.add_argument("--source", metavar="NAME", help="one source of the recording; else all")
    play.add_argument("--as-new", action="store_true", help="with new session and run ids, as a run of its own")
    play.add_argument(
        "--wait-s", type=_seconds, default=2.0, metavar="S", help="wait so long for the first subscriber (2)"
    )
    play.add_argument("--insecure", action="store_true", help="publish beyond this machine unencrypted")
    play.add_argument("--keys", metavar="DIR", help="publish encrypted, to those whose keys are in this key folder")

    mosaic = commands.add_parser("mosaic", help="the visited area as one picture, cells marked", allow_abbrev=False)
    mosaic.set_defaults(call=_mosaic)
    mosaic.add_argument("journal", metavar="JOURNAL")
    mosaic.add_argument(
        "recording", metavar="RECORDING", nargs="?", help="of the same run; else its own, or its source"
    )
    mosaic.add_argument("-o", dest="out", metavar="FILE", required=True, help="a .png, .jpg or .tif")
    mosaic.add_argument("--max-side", type=_positive, default=6000, metavar="PX", help="of the picture (6000)")
    mosaic.add_argument("--source", metavar="NAME", help="which session, where the journal has several")
    mosaic.add_argument("--island", type=int, metavar="N", help="only this one; else all, side by side")
    mosaic.add_argument("--marks", action=argparse.BooleanOptionalAction, default=True, help="mark the counted cells")

    classify = commands.add_parser("classify", help="name the cell of each picture", allow_abbrev=False)
    classify.set_defaults(call=_classify)
    classify.add_argument("--source", required=True, metavar="DIR")
    classify.add_argument("--classifier", metavar="NAME|FILE", default="mobilenetv3-small")
    classify.add_argument(
        "--detector",
        metavar="NAME|FILE|none",
        default="yolov5n-blood",
        help="what finds the cell in pictures larger than one cell; none: every picture shows one cell",
    )
    classify.add_argument("--backend", choices=("auto", "onnxruntime", "tensorrt"), default="auto")
    classify.add_argument("--jsonl", required=True, metavar="FILE|-")

    explain = commands.add_parser("explain", help="Grad-CAM overlays of pictures", allow_abbrev=False)
    explain.set_defaults(call=_explain)
    explain.add_argument("source", metavar="FILE|DIR", help="pictures of single cells; with --detector, of fields")
    explain.add_argument("-o", dest="out", required=True, metavar="DIR")
    explain.add_argument("--classifier", metavar="NAME|FILE", default="mobilenetv3-small")
    explain.add_argument("--detector", metavar="NAME|FILE", help="explain every white cell that it finds")
    explain.add_argument("--class", dest="class_name", metavar="NAME", help="the class to explain; else the likeliest")

    control = commands.add_parser("control", help="pause, new slide, reclassify … a run elsewhere", allow_abbrev=False)
    control.add_argument("endpoint", metavar="ENDPOINT", help="where it publishes")
    requests = control.add_subparsers(required=True, metavar="COMMAND", dest="request", parser_class=_Parser)
    for name, about in CONTROLS.items():
        request = requests.add_parser(name, help=about, description=about, allow_abbrev=False)
        request.set_defaults(call=_control)
        if name == "stop-at":
            request.add_argument("cells", metavar="N|none")
        if name == "reclassify":
            request.add_argument("cell_id", type=int, metavar="CELL")
            request.add_argument("class_", metavar="CLASS", help='or "auto": its looks decide again')
            request.add_argument("--subclass", metavar="NAME")
        request.add_argument("--source", metavar="NAME", help="where there are several")
        request.add_argument("--id", dest="id_", metavar="ID", help="of a command whose reply was lost: done once")
        request.add_argument("--timeout", type=float, default=2.0, metavar="S", help="for each of three attempts")
        _add_key_options(request)

    keys = commands.add_parser("keys", help="CURVE keys for encrypted publishing", allow_abbrev=False)
    keys_commands = keys.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    keys_new = keys_commands.add_parser("new", help="make a key folder", allow_abbrev=False)
    keys_new.set_defaults(call=_keys_new)
    keys_new.add_argument("folder", metavar="DIR")

    models = commands.add_parser("models", help="the models and their measured figures", allow_abbrev=False)
    models.set_defaults(call=_models)
    models_commands = models.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    pull = models_commands.add_parser("pull", help="fetch the file of a model that does not ship", allow_abbrev=False)
    pull.set_defaults(call=_models_pull)
    pull.add_argument("name", metavar="NAME")
    pull.add_argument("--from", dest="source", metavar="URL|DIR", required=True)
    doctor = commands.add_parser("doctor", help="what is installed and works here", allow_abbrev=False)
    doctor.set_defaults(call=_doctor)

    compile_ = commands.add_parser("compile", help="build a TensorRT engine", allow_abbrev=False)
    compile_.set_defaults(call=_compile)
    compile_.add_argument("model", metavar="MODEL")
    compile_.add_argument("--precision", choices=("fp32", "fp16", "int8"), required=True)
    compile_.add_argument("--batch", metavar="MIN,OPT,MAX", required=True)
    compile_.add_argument("--calibration", metavar="SRC", help="real frames; for a classifier, pictures of cells")
    compile_.add_argument("--size", default="640x480", metavar="WxH", help="of the camera's frames")
    compile_.add_argument("--workspace-mib", type=_positive, default=1024, metavar="N")
    compile_.add_argument(
        "--optimization-level", type=int, choices=range(6), default=3, help="0 builds fast, 5 runs fast"
    )
    compile_.add_argument("--version-compatible", action="store_true", help="runs on later TensorRT releases too")
    compile_.add_argument("--hardware-compatible", action="store_true", help="runs on any GPU since Ampere")
    compile_.add_argument("--accept-parity-loss", action="store_true")
    compile_.add_argument("--force", action="store_true", help="build even where a plan is there")
    compile_.add_argument("--layers", metavar="FILE", help="TensorRT's description of the layers, JSON")
    compile_.add_argument("--onnx", metavar="FILE", help="write the converted graph and stop; needs no GPU")
    compile_.add_argument("--device", type=int, default=0, metavar="N")
    return parser


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--publish", metavar="ENDPOINT", help="for example tcp://127.0.0.1:5555")
    parser.add_argument("--insecure", action="store_true", default=None, help="publish beyond this machine unencrypted")
    parser.add_argument("--keys", metavar="DIR", help="publish encrypted, to those whose keys are in this key folder")
    parser.add_argument("--control", action="store_true", default=None, help="take commands without keys")
    parser.add_argument("--metrics", metavar="PORT", help="serve /metrics for Prometheus, /healthz and /readyz")
    parser.add_argument("--jsonl", metavar="FILE|-", help="write the messages, one a line")
    _add_dashboard_options(parser)


def _add_key_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", metavar="DIR", help="one's own key folder")
    parser.add_argument("--server-key", metavar="FILE", help="the publisher's public key")


def _add_dashboard_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dashboard", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--picture", action=argparse.BooleanOptionalAction, default=None, help="draw the current frame")
    parser.add_argument(
        "--map",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="draw the map of the slide in the place of the frame",
    )


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected seconds, such as 5 or 0")
    return float(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options = vars(build_parser().parse_args(arguments))
        command: Command = options.pop("call")
        return command(options)
    except LeukostreamError as error:
        print(f"leukostream: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); keep the interpreter from complaining about it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(options: Options) -> int:
    from streamer.commands.run import run
    from streamer.config import load_config

    config_file = options.pop("config")
    return run(load_config(config_file, _given(options)))


def _demo(options: Options) -> int:
    from streamer.commands.run import demo

    return demo(_given(options))


def _watch(options: Options) -> int:
    from streamer.commands.run import watch

    keys = (options["keys"], options["server_key"])
    shown = {name: options[name] for name in ("dashboard", "picture", "map") if options[name] is not None}
    return watch(options["endpoint"], shown, keys=keys)


def _subscribe(options: Options) -> int:
    from streamer.network.subscriber import Subscriber

    keys = {"keys": options["keys"], "server_key": options["server_key"]}
    with Subscriber(options["endpoint"], [options["topic"]], **keys) as subscriber:
        for number, received in enumerate(subscriber, start=1):
            sys.stdout.buffer.write(received.raw_header + b"\n")
            sys.stdout.flush()
            if number == options["count"]:
                break
    return 0


def _control(options: Options) -> int:
    from streamer.commands.control import control

    fields: Options = {}
    if "cells" in options:
        fields["cells"] = None if options["cells"] == "none" else _cells(options["cells"])
    if "cell_id" in options:
        class_ = None if options["class_"] == "auto" else options["class_"]
        fields = {"cell_id": options["cell_id"], "class_": class_, "subclass": options["subclass"]}
    return control(
        options["endpoint"],
        options["request"].replace("-", "_"),
        fields,
        source=options["source"],
        id_=options["id_"],
        keys=(options["keys"], options["server_key"]),
        timeout_s=options["timeout"],
    )


def _cells(text: str) -> int:
    try:
        return _positive(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"control stop-at: {error}, or none") from None


def _keys_new(options: Options) -> int:
    from pathlib import Path

    from streamer.network.auth import new_pair
    from streamer.network.keys import write_key_folder

    folder = Path(options["folder"])
    write_key_folder(folder, new_pair())
    print(f"made {folder}: give away leukostream.key only; put the public keys of others into authorised/")
    return 0


def _recount(options: Options) -> int:
    from streamer.commands.recount import recount

    return recount(options["journal"])


def _export(options: Options) -> int:
    from streamer.commands.export import export

    return export(options["journal"], options["format"], options["out"], options["pictures"])


def _play(options: Options) -> int:
    from streamer.commands.play import play

    return play(**options)


def _mosaic(options: Options) -> int:
    from streamer.commands.mosaic import mosaic

    return mosaic(options.pop("journal"), options.pop("recording"), options.pop("out"), **options)


def _classify(options: Options) -> int:
    from engines.models.loading import load_classifier, load_detector
    from streamer.analysis.field_search import ENGINES_KEPT, FieldSearch
    from streamer.commands.classify import classify

    def say(line: str) -> None:
        print(f"leukostream: {line}", file=sys.stderr if options["jsonl"] == "-" else sys.stdout)

    classifier = load_classifier(options["classifier"], backend=options["backend"], say=say)
    finder = options["detector"]
    search = None
    if finder != "none":
        search = FieldSearch(load_detector(finder, backend=options["backend"], engines_kept=ENGINES_KEPT, say=say))
    return classify(options["source"], classifier, options["jsonl"], search)


def _explain(options: Options) -> int:
    from streamer.commands.explain import explain

    return explain(**options)


def _models(_: Options) -> int:
    from rich.console import Console

    from streamer.commands.models import print_models

    return print_models(Console())


def _models_pull(options: Options) -> int:
    from engines.zoo.registry import zoo_card
    from engines.zoo.store import pull

    path = pull(zoo_card(options["name"]), options["source"])
    print(f"{options['name']}: {path}, as its card says")
    return 0


def _doctor(_: Options) -> int:
    from rich.console import Console

    from streamer.commands.doctor import doctor

    return doctor(Console())


def _compile(options: Options) -> int:
    from rich.console import Console

    from streamer.commands.compile import CompileArguments, compile_command

    return compile_command(CompileArguments(**options), Console())


def _given(options: Options) -> Options:
    """The options that were on the command line, as configuration fields."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items() if value is not None
    }
