"""`leukostream reanalyse`: recordings, journals and slides analysed again, side by side, as `run` would one by one."""

from __future__ import annotations

from typing import Any, get_args

from engines.base import UsageError, usable_cores
from streamer.commands.options import Parser, add_site_option, number, positive, show_defaults, whole
from streamer.config import DEFAULT_CLASSIFIER, Backend, Config, load_config
from streamer.interop.formats import needed


class Options:
    def __init__(
        self, sources: list[str], out: str, ray: str | None, shard_workers: int | None, config: str | None, **given: Any
    ) -> None:
        self.sources, self.out, self.ray, self.workers = sources, out, ray, shard_workers
        self.config_file = config
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        self.given = {name: value for name, value in fields.items() if value is not None}
        """Of fields of Config, those that were given."""


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "sources",
        metavar="[NAME=]SRC",
        nargs="+",
        help="a recording, a journal whose recording or pictures are there, a directory of images or of recordings, a"
        " film, wsi:FILE, a glob of these; each is one slide",
    )
    parser.add_argument(
        "-o",
        dest="out",
        metavar="OUT/",
        required=True,
        help="journals and tables; what is done is left",
    )
    where = parser.add_argument_group("where", "processes of this machine, or the nodes of a Ray cluster")
    where.add_argument("--workers", dest="shard_workers", type=positive, metavar="N", help="slides side by side here")
    where.add_argument("--ray", metavar="ADDRESS", help="HOST:PORT or auto: slides side by side over a cluster's cores")
    models = parser.add_argument_group("models", "as of run")
    for name, text in (
        ("--detector", "finds the cells"),
        ("--classifier", f"names the white cells; auto: the detector's own classes, else {DEFAULT_CLASSIFIER}; none"),
        ("--segmenter", "measures nucleus and cytoplasm of white cells; none"),
    ):
        models.add_argument(name, action="extend", nargs=1, metavar="[NAME=]MODEL", help=text)
    add_site_option(models)
    models.add_argument("--backend", choices=get_args(Backend), help="what runs them")
    models.add_argument("--long-side-px", type=whole, metavar="PX", help="of the detector's input")
    models.add_argument("--rbc-diameter-px", type=number, metavar="PX", help="of red cells in the frames")
    models.add_argument("--min-score", type=number, metavar="F", help="lowest score published")
    models.add_argument(
        "--um-per-px",
        action="extend",
        nargs=1,
        metavar="[NAME=]UM",
        help="micrometres a pixel",
    )
    models.add_argument("--config", metavar="FILE.toml", help="options of run as keys of a file")
    show_defaults(parser, Config())


def main(options: Options) -> int:
    """1 where a slide could not be analysed."""
    with needed("reanalyse", "parquet"):
        from streamer.commands.reanalyse.analysing import analyse
        from streamer.commands.reanalyse.archive import reanalyse
    config = load_config(options.config_file, options.given)
    if options.ray is None:
        from streamer.commands.reanalyse.workers import on_processes

        workers = options.workers or usable_cores()
        return reanalyse(options.sources, options.out, config, lambda jobs: on_processes(analyse, jobs, workers))
    if options.workers is not None:
        raise UsageError("--workers: got --ray too, expected one of them: a cluster has as many as it has cores")
    with needed("--ray", "fleet"):
        from streamer.inference.ray_fleet import connected, on_cluster
    with connected(options.ray):
        return reanalyse(options.sources, options.out, config, lambda jobs: on_cluster(analyse, jobs))
