"""`leukostream control`: one command to a running leukostream, and its reply as a JSON line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from engines.base import LeukostreamError, UsageError
from streamer.network.subscriber import Subscriber
from streamer.protocol.requests import (
    COMMAND_TYPES,
    AnyCommand,
    AnyReply,
    AnyRequest,
    RefusedReply,
    StatusReply,
    StatusRequest,
    encode_reply,
    new_request_id,
)

ATTEMPTS = 3
"""The request is made so often, with the same id, before its reply is given up."""


def control(
    endpoint: str,
    request: str,
    fields: Mapping[str, Any],
    *,
    source: str | None,
    id_: str | None,
    keys: tuple[str | None, str | None],
    timeout_s: float,
) -> int:
    """Give a command ("status" asks only) and print the reply. 0: carried out, 1: refused.

    `source` may be left out where there is one. `id_`: as it was given before, of a command whose reply was lost:
    it is carried out once. LeukostreamError where nobody answers, UsageError for an unknown source.
    """
    with Subscriber(endpoint, ["health."], keys=keys[0], server_key=keys[1], reply_timeout_s=timeout_s) as subscriber:
        reply: AnyReply = _answer(subscriber, StatusRequest(id=new_request_id()))
        if request != "status":
            reply = _answer(subscriber, _command(request, fields, reply, source, id_ or new_request_id()))
    sys.stdout.buffer.write(encode_reply(reply) + b"\n")
    sys.stdout.flush()
    if isinstance(reply, RefusedReply):
        raise LeukostreamError(f"control {endpoint}: {request} was refused ({reply.code}): {reply.reason}")
    return 0


def _command(request: str, fields: Mapping[str, Any], status: AnyReply, source: str | None, id_: str) -> AnyCommand:
    if not isinstance(status, StatusReply):
        raise LeukostreamError(f"control: got {status}, expected the status of a leukostream")
    names = ", ".join(status.sources) or "none"
    if source is None and len(status.sources) != 1:
        raise UsageError(f"control {request}: got no --source, expected one of: {names}")
    if source is not None and status.sources and source not in status.sources:
        raise UsageError(f"control {request}: got --source {source}, expected one of: {names}")
    if status.run_id is None:
        raise LeukostreamError("control: got a leukostream that has published nothing yet; try again in a moment")
    name = source or next(iter(status.sources))
    return COMMAND_TYPES[request](id=id_, run_id=status.run_id, source=name, **fields)


def _answer(subscriber: Subscriber, request: AnyRequest) -> AnyReply:
    for _ in range(ATTEMPTS):
        reply = subscriber.ask(request)
        if reply is not None:
            return reply
        subscriber.receive(0)  # RefusedError where our key is not wanted
    raise LeukostreamError(
        f"control {subscriber.endpoint}: got no reply to {request.id}, expected a leukostream that publishes there: "
        "check the address; with the same --id a command that did arrive is not carried out again"
    )
