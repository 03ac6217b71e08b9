"""`fleet serve`: servers and microscopes as a page of this machine."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from streamer.commands.page_server import page_packages, page_server
from streamer.fleet.microscopes import Microscope, Microscopes
from streamer.fleet.servers import rows_of
from streamer.inference.fleet_watch import AUTO, FleetWatch

if TYPE_CHECKING:
    from streamer.commands.fleet import Options

_LOOK_S = 1.0


class _Looking:
    """A thread that listens to microscopes; what it heard is for any other."""

    def __init__(self, microscopes: Microscopes) -> None:
        self._microscopes = microscopes
        self._closing = threading.Event()
        self.rows: list[Microscope] = list(microscopes.rows())
        self._thread = threading.Thread(target=self._run, name="microscopes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        with self._microscopes:
            while not self._closing.is_set():
                self._microscopes.look(_LOOK_S)
                self.rows = list(self._microscopes.rows())


def serve(options: Options) -> int:
    """Until Ctrl-C. UsageError for options."""
    with page_packages("fleet serve"):
        from streamer.fleet.server.app import FleetView, build_app
    with page_server(options, "fleet serve") as server, contextlib.ExitStack() as stack:
        microscopes = Microscopes(options.endpoints, keys=options.keys, server_key=options.server_key)
        looking = _Looking(microscopes)
        stack.callback(looking.close)
        watch = FleetWatch(options.address or AUTO, "--address")
        stack.callback(watch.close)

        def look() -> FleetView:
            state = watch.state
            return FleetView(looking.rows, [] if state is None else rows_of(state), watch.fault)

        server.serve(build_app(look, **server.guarding), "open that address in a browser; Ctrl-C ends it")
    return 0
