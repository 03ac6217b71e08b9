"""Subscribers in a process of their own: python -m tests.streamer.network.crowd_cases ENDPOINT COUNT SPREAD_S SEED

Each joins at a random moment of the first SPREAD_S seconds, every second one from the beginning of the session, and
stays until it has the final differential. Then it writes one line: what its state comes to, and what it lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
import time

from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import AnyMessage, encode


def digest(message: AnyMessage) -> str:
    return hashlib.sha256(encode(message)).hexdigest()


def follow(endpoint: str, delay_s: float, history: bool) -> None:
    time.sleep(delay_s)
    received = 0
    with Subscriber(endpoint, history=history) as subscriber:
        while (state := subscriber.state()) is None or not state.final:
            received += subscriber.receive(1.0) is not None
        while subscriber.receive(0) is not None:
            received += 1
        report = {
            "state": digest(state),
            "lost": subscriber.lost,
            "whole": not history or received > state.session_seq,
            "replayed": subscriber.replayed,
        }
    os.write(1, json.dumps(report).encode() + b"\n")


def main(endpoint: str, count: str, spread_s: str, seed: str) -> None:
    rng = random.Random(int(seed))
    threads = [
        threading.Thread(target=follow, args=(endpoint, rng.uniform(0, float(spread_s)), number % 2 == 0))
        for number in range(int(count))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
