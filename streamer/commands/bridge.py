"""`leukostream bridge`: what a streamer publishes, passed on to MQTT, a webhook, NATS or Kafka."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from engines.base import UsageError
from streamer.bridge.addresses import Address, Secrets, address_of, read_secrets
from streamer.bridge.buffer import BUFFER_MAX, Buffer
from streamer.bridge.cursor import Cursor
from streamer.bridge.events import Selection
from streamer.bridge.opening import Settings, default_name, default_state, digest, open_target
from streamer.bridge.running import Bridge
from streamer.commands.options import Parser, add_key_options, flag, positive, seconds
from streamer.commands.output import remark
from streamer.network.subscriber_async import AsyncSubscriber

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    target: str
    endpoint: str
    name: str | None
    """None: this machine's."""
    prefix: str
    discovery: str
    """Empty: Home Assistant is told nothing."""
    cells: bool
    health_every: float
    buffer: int
    state: str | None
    until_end: bool
    linger: float
    ca: str | None
    secret_file: str | None
    insecure: bool | None
    keys: str | None
    server_key: str | None


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "target",
        metavar="ADDRESS",
        help="mqtt(s)://HOST[:PORT], nats(s)://…, kafka(s)://…, or http(s)://… of a webhook",
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="where the streamer publishes (tcp://127.0.0.1:5555)")
    what = parser.add_argument_group("messages", "what is passed on, and where to")
    what.add_argument("--name", metavar="NAME", help="of this bridge, in topics (default: this machine's)")
    what.add_argument("--prefix", metavar="TOPIC", default="leukostream", help="before it")
    what.add_argument("--cells", action="store_true", help="every cell too, without its picture")
    what.add_argument(
        "--health-every", type=seconds, default=10.0, metavar="SECONDS", help="pass health on so often at most"
    )
    what.add_argument(
        "--discovery", metavar="TOPIC", default="homeassistant", help="MQTT: tell Home Assistant; '' does not"
    )
    going = parser.add_argument_group("going on", "when something fails, and when to end")
    going.add_argument("--buffer", type=positive, default=BUFFER_MAX, metavar="N", help="messages that may wait")
    going.add_argument("--state", metavar="DIR", help="what survives a restart (default: the user's folder for state)")
    going.add_argument("--until-end", action="store_true", help="end when every source has ended")
    going.add_argument(
        "--linger", type=seconds, default=5.0, metavar="SECONDS", help="at the end, deliver what waits so long at most"
    )
    target = parser.add_argument_group(
        "security of the target", "user and password: LEUKOSTREAM_BRIDGE_USER, LEUKOSTREAM_BRIDGE_SECRET"
    )
    target.add_argument("--secret-file", metavar="FILE", help="the password, or what a webhook is signed with")
    target.add_argument("--ca", metavar="FILE", help="certificates to trust, PEM (default: this machine's)")
    flag(target, "--insecure", "deliver beyond this machine unencrypted")
    add_key_options(parser)


def main(options: Options) -> int:
    """0 when it was told to end, or with --until-end all was delivered; 1 where something was lost."""
    address = address_of(options.target, insecure=bool(options.insecure))
    name = default_name() if options.name is None else options.name
    for option, text, pattern in (("--name", name, _NAME), ("--prefix", options.prefix, _PREFIX)):
        if not pattern.fullmatch(text):
            raise UsageError(f"{option}: got {text!r}, expected letters, digits, '-' and '_'")
    if options.discovery and not _PREFIX.fullmatch(options.discovery):
        raise UsageError(f"--discovery: got {options.discovery!r}, expected a topic, such as homeassistant")
    settings = Settings(
        prefix=options.prefix,
        name=name,
        discovery=options.discovery or None,
        cells=options.cells,
        state=default_state() if options.state is None else Path(options.state),
    )
    try:
        bridge = asyncio.run(_run(options, address, read_secrets(options.secret_file, options.ca), settings))
    except KeyboardInterrupt:  # before our own handler was there
        return 130
    lost = bridge.lost()
    counts = "".join(f", {count} lost ({reason})" for reason, count in lost.items())
    remark(f"{address}: {bridge.delivered} delivered, {bridge.buffer.superseded} superseded before{counts}")
    return 1 if lost else 0


async def _run(options: Options, address: Address, secrets: Secrets, settings: Settings) -> Bridge:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    target = open_target(address, secrets, settings, remark)
    cursor = Cursor(settings.state / f"cursor-{digest(str(address), options.endpoint, settings.name)}.json")
    subscriber = AsyncSubscriber(
        options.endpoint,
        [f"{kind}." for kind in sorted({*target.kinds, "differential"} - {"silent"})],
        history=True,
        progress=cursor.progress,
        keys=options.keys,
        server_key=options.server_key,
    )
    bridge = Bridge(
        subscriber=subscriber,
        target=target,
        selection=Selection(
            target.kinds, health_every_s=options.health_every, going_on=cursor.going_on, now_s=time.monotonic()
        ),
        buffer=Buffer(options.buffer),
        cursor=cursor,
        remark=remark,
    )
    async with subscriber:
        await bridge.run(stop, until_end=options.until_end, linger_s=options.linger)
    return bridge
