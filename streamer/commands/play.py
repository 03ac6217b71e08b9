"""`leukostream play`: the messages of a recording, published again for people who write subscribers."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from streamer.network.publisher import Publisher
from streamer.protocol.factory import new_id
from streamer.protocol.messages import AnyMessage, Envelope, WireError, decode
from streamer.recording import Recording, RecordingError
from streamer.sources.replay import parse_speed

SERVICE_S = 0.02
"""How long a wait may be until who asks for what was missed is answered."""

FAREWELL_S = 0.5
"""How long, at the end, subscribers may still ask for what they missed."""


@dataclass(slots=True)
class Played:
    """What was published of a recording."""

    messages: Counter[str] = field(default_factory=Counter)
    """By source."""
    unknown: int = 0
    """Messages of a kind that this program does not know; they are left out."""


def play(
    recording: str,
    publish: str,
    *,
    speed: str,
    source: str | None,
    as_new: bool,
    wait_s: float,
    insecure: bool,
    keys: str | None,
) -> int:
    """Publish until the recording ends. RecordingError for the recording, and what Publisher raises.

    `wait_s`: how long the first subscriber is waited for; then it begins without one.
    """
    factor = parse_speed(speed, "--speed")
    with Recording(recording) as opened:
        if source is not None:
            opened.track(source)
        if opened.message_count == 0:
            raise RecordingError(f"recording {recording}: got no message, expected some; it ends before the first")
        with Publisher(publish, insecure=insecure, keys=keys, farewell_s=FAREWELL_S) as publisher:
            print(f"publishing on {publisher.endpoint}", flush=True)
            _wait_for_subscriber(publisher, wait_s)
            played = play_messages(opened, publisher, source, factor, as_new=as_new)
        if opened.ending.fault is not None:
            print(f"leukostream: {opened.ending.told(recording)}", file=sys.stderr)
    counts = ", ".join(f"{count} of {name}" for name, count in played.messages.items())
    unknown = f"; left out {played.unknown} of a kind that this version does not know" if played.unknown else ""
    print(f"published {sum(played.messages.values())} messages: {counts}{unknown}")
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

    They are as they were, times and ids too; with `as_new` every session and every run has a new id.
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
