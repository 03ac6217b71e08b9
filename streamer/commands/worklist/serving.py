"""`leukostream worklist serve`: the list as a page of this machine."""

from __future__ import annotations

from streamer.commands.page_server import ServerOptions, page_packages, page_server
from streamer.worklist.address import address_of
from streamer.worklist.book import Worklist


def serve(to: str, options: ServerOptions) -> int:
    """Until Ctrl-C. UsageError for options, WorklistError for a list that can't be used."""
    with page_packages("worklist serve"):
        from streamer.worklist.server.app import build_app
    address = address_of(to)
    with page_server(options, "worklist serve") as server, Worklist(address) as worklist:
        server.serve(build_app(worklist, **server.guarding), "open that address in a browser; Ctrl-C ends it")
    return 0
