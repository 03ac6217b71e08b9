"""`leukostream play`: the messages of a recording, published again for people who write subscribers."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from streamer.commands.options import Parser, seconds
from streamer.commands.output import remark, say
from streamer.network.publisher import Publisher
from streamer.protocol.factory import new_id
from streamer.protocol.messages import PROTOCOL_VERSION, AnyMessage, Envelope, WireError, decode
from streamer.recording import Recording, RecordingError
from streamer.sources.replay import parse_speed

SERVICE_S = 0.02
"""The longest wait between two services of the publisher, so that requests are answered soon."""

FAREWELL_S = 0.5
"""How long, at the end, subscribers may still ask for what they missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    recording: str
    publish: str
    speed: str
    source: str | None
    """One source of the recording; None: all."""
    as_new: bool
    wait_s: float
    """How long the first subscriber is waited for; then publishing begins without one."""
    insecure: bool
    keys: str | None


def add_options(parser: Parser) -> None:
    parser.add_argument("recording", metavar="RECORDING", help="what run --record wrote")
    messages = parser.add_argument_group("messages", "which ones, and how fast")
    messages.add_argument("--source", metavar="NAME", help="one source of the recording; else all")
    messages.add_argument("--speed", default="1", metavar="N|max", help="times as fast as they were published")
    messages.add_argument("--as-new", action="store_true", help="with new session and run ids, as a run of its own")
    publishing = parser.add_argument_group("publishing", "where subscribers find them")
    publishing.add_argument("--publish", metavar="ENDPOINT", required=True, help="for example tcp://127.0.0.1:5555")
    publishing.add_argument(
        "--wait-s", type=seconds, default=2.0, metavar="S", help="wait this long for the first subscriber"
    )
    security = parser.add_argument_group("security", "who may read what is published")
    security.add_argument("--insecure", action="store_true", help="publish beyond this machine unencrypted")
    security.add_argument("--keys", metavar="DIR", help="encrypt, for those whose keys are in this key folder")


@dataclass(slots=True)
class Played:
    """What was published of a recording."""

    messages: Counter[str] = field(default_factory=Counter)
    """By source."""
    unknown: int = 0
    """Messages of a kind that this program does not know; they are left out."""


def main(options: Options) -> int:
    """Publish until the recording ends. RecordingError for the recording, and what Publisher raises."""
    path = options.recording
    speed = parse_speed(options.speed, "--speed")
    with Recording(path) as recording:
        if options.source is not None:
            recording.track(options.source)
        if recording.message_count == 0:
            raise RecordingError(f"recording {path}: got no message, expected some; it ends before the first")
        with Publisher(
            options.publish, insecure=options.insecure, keys=options.keys, farewell_s=FAREWELL_S
        ) as publisher:
            say(f"publishing on {publisher.endpoint}")
            _wait_for_subscriber(publisher, options.wait_s)
            played = play_messages(recording, publisher, options.source, speed, as_new=options.as_new)
        if recording.ending.fault is not None:
            remark(recording.ending.described(path))
    counts = ", ".join(f"{count} of {name}" for name, count in played.messages.items())
    unknown = f"; left out {played.unknown} of a kind that this version does not know" if played.unknown else ""
    say(f"published {sum(played.messages.values())} messages: {counts}{unknown}")
    return 0


def play_messages(
    recording: Recording,
    publisher: Publisher,
    source: str | None,
    speed: float,
    *,
    as_new: bool,
    now_ns: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], object] = time.sleep,
) -> Played:
    """Publish the messages of a source, or of all, `speed` times as fast as they were; 0: as fast as it goes.

    They are as they were, times and ids too, in the form of today's protocol; with `as_new` every session and every run
    has a new id.
    """
    played = Played()
    new: defaultdict[str, str] = defaultdict(new_id)
    due_ns, last_utc_ns = now_ns(), None
    for utc_ns, message, payload in _messages(recording, source):
        if speed and last_utc_ns is not None:
            due_ns += round(max(0, utc_ns - last_utc_ns) / speed)
            while (left_ns := due_ns - now_ns()) > 0:
                publisher.service()
                sleep(min(left_ns / 1e9, SERVICE_S))
        last_utc_ns = utc_ns
        if isinstance(message, Envelope):
            played.unknown += 1
            continue
        message = msgspec.structs.replace(message, version=PROTOCOL_VERSION)
        if as_new:
            message = msgspec.structs.replace(message, session=new[message.session], run_id=new[message.run_id])
        publisher.publish(message, payload)
        played.messages[message.source] += 1
    return played


def _wait_for_subscriber(publisher: Publisher, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    publisher.service()
    while not publisher.has_subscribers and time.monotonic() < until:
        time.sleep(SERVICE_S)
        publisher.service()


def _messages(recording: Recording, source: str | None) -> Iterator[tuple[int, AnyMessage | Envelope, bytes | None]]:
    for recorded in recording.messages(source):
        try:
            yield recorded.published_utc_ns, decode(recorded.header), recorded.payload
        except WireError as error:
            raise RecordingError(f"recording {recording.path}: {error}") from error
