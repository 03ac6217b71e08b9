import random
import signal
import socket

import pytest


def pytest_configure() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored; the tests of Ctrl-C need it as it usually is."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def free_port() -> int:
    """A TCP port of this machine that nobody uses.

    Below the ports that the system gives to connecting sockets: a subscriber that tries a free port of that range
    again and again may one day be connected to itself.
    """
    for port in random.sample(range(20_000, 30_000), 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 30000")
