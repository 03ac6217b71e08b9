"""Ctrl-C and SIGTERM: the first ends a run, once only subscribers are waited for each ends that, a second is meant as
ever."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from streamer.commands.run.ending import stop_on_signals


@pytest.fixture
def handler() -> Iterator[object]:
    """Of Ctrl-C, as Python has it from the start, whatever was run in this process before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_what_each_signal_does(handler: object) -> None:
    done: list[str] = []
    pipeline = SimpleNamespace(stop=done.append)
    publisher = SimpleNamespace(lingering=False, hurry=lambda: done.append("hurried"))
    display = SimpleNamespace(leave=lambda: None)
    with stop_on_signals(pipeline, publisher, display):  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGINT)
        assert done == ["by SIGINT"]
        publisher.lingering = True
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        assert done[1:] == ["hurried"] * 2
        publisher.lingering = False
        signal.raise_signal(signal.SIGTERM)
        assert done[3:] == ["by SIGTERM"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler
