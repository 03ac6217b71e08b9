"""`leukostream fleet`: inference servers on a Ray cluster, and how they and the microscopes do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from engines.base import UsageError
from streamer.commands.options import Group, Parser, add_key_options, positive
from streamer.commands.page_server import add_server_options
from streamer.config import Backend
from streamer.interop.formats import needed

if TYPE_CHECKING:
    from streamer.inference.fleet_plan import Kind

_WORKERS = re.compile(r"(cpu|gpu)=(\d+)(?:\.\.(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of the command that was given; what the others alone have keeps its default."""

    command: Literal["up", "status", "serve", "down"]
    address: str | None
    endpoints: tuple[str, ...] | list[str] = ()
    workers: str = ""
    model: list[str] | None = None
    backend: Backend = "auto"
    precision: Literal["fp32", "fp16", "int8"] | None = None
    cores: int = 1
    keys: str | None = None
    server_key: str | None = None
    insecure: bool | None = None
    metrics: bool = False
    targets: str | None = None
    bind: str = ""
    tls_cert: str | None = None
    tls_key: str | None = None


def add_options(parser: Parser) -> None:
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", dest="command", parser_class=Parser, title="commands"
    )
    about = "start inference servers, or replace those that run by others, without a lost frame"
    up = commands.add_parser("up", help=about, description=f"{about[0].upper()}{about[1:]}.")
    _add_address(up, "that of this machine; where there is none, one that lasts until Ctrl-C")
    up.add_argument(
        "--workers",
        metavar="cpu|gpu=N[..M]",
        required=True,
        help="servers, one GPU each or none; with ..M up to so many while requests wait",
    )
    models = up.add_argument_group("models", "microscopes find them by the hash of their file")
    models.add_argument("--model", action="extend", nargs="+", metavar="NAME|FILE", help="as of leukostream serve")
    models.add_argument("--backend", choices=get_args(Backend), default="auto", help="what runs them")
    models.add_argument("--precision", choices=("fp32", "fp16", "int8"), help="refuse engines that compute in another")
    models.add_argument("--cores", type=positive, default=1, metavar="N", help="of each server")
    up.add_argument("--metrics", action="store_true", help="each server answers Prometheus too, at a port of its own")
    security = up.add_argument_group("security", "who may have pictures analysed")
    security.add_argument("--insecure", action="store_true", help="serve other machines unencrypted")
    security.add_argument("--keys", metavar="DIR", help="a key folder at the same path on every node")

    about = "how servers and microscopes do"
    status = commands.add_parser("status", help=about, description=f"{about[0].upper()}{about[1:]}.")
    _add_seen(status)
    status.add_argument(
        "--targets", metavar="FILE.json", help="write where Prometheus asks the servers of up --metrics"
    )

    about = "the same as a page, of this machine"
    page = commands.add_parser("serve", help=about, description=f"{about[0].upper()}{about[1:]}.")
    _add_seen(page)
    add_server_options(page, "serve beyond this machine unencrypted")

    about = "let the servers answer what they took, and end them"
    down = commands.add_parser("down", help=about, description=f"{about[0].upper()}{about[1:]}.")
    _add_address(down, "that of this machine")


def _add_seen(parser: Parser) -> None:
    _add_address(parser, "that of this machine, where there is one")
    parser.add_argument("endpoints", metavar="ENDPOINT", nargs="*", help="where microscopes publish")
    add_key_options(parser)


def _add_address(group: Group, default: str) -> None:
    group.add_argument("--address", metavar="HOST:PORT", help=f"of a Ray cluster (default: {default})")


def main(options: Options) -> int:
    if options.command == "status":
        from streamer.commands.fleet.status import print_status

        return print_status(options)
    if options.command == "serve":
        from streamer.commands.fleet.serving import serve

        return serve(options)
    wanted = _workers(options.workers) if options.command == "up" else None
    with needed("fleet", "fleet"):
        from streamer.commands.fleet import servers
    if wanted is None:
        return servers.down(options.address)
    least, most, kind = wanted
    return servers.up(options, kind, least, most)


def _workers(text: str) -> tuple[int, int, Kind]:
    match = _WORKERS.fullmatch(text)
    least = int(match[2]) if match else 0
    most = int(match[3] or least) if match else 0
    if match is None or not 1 <= least <= most:
        raise UsageError(f"--workers {text}: got no servers, expected cpu=N, gpu=N, or cpu=N..M with N below M")
    return least, most, "cpu" if match[1] == "cpu" else "gpu"
