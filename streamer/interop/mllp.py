"""MLLP, in which HL7 messages travel: one message over TCP, and the answer to it.

Source: HL7 Version 3 Standard: Transport Specification - MLLP, Release 1. It is not encrypted: beyond a trusted network
it takes a tunnel.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_segment

from engines.base import LeukostreamError, UsageError, printable
from streamer.interop.hl7_messages import VERSION, Hl7Message

START, END = b"\x0b", b"\x1c\r"

ANSWER_MAX_BYTES = 1 << 20

COMMIT_WAIT_S = 5.0
"""How long, after a commit acknowledgement, the application's is waited for: it may come over another line."""

ACCEPTED = ("AA", "CA")
REFUSED = ("AE", "AR", "CE", "CR")


class MllpError(LeukostreamError):
    """The line or the receiver failed: whether the message arrived is not known, so that it has to be sent again."""


@dataclass(frozen=True, slots=True)
class Receiver:
    host: str
    port: int

    def __str__(self) -> str:
        return f"mllp://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def receiver_of(address: str) -> Receiver:
    """Of mllp://HOST:PORT. UsageError for anything else."""
    expected = f"--to: got {address!r}, expected mllp://HOST:PORT, such as mllp://lis.lab:2575"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(expected) from None
    if parts.scheme != "mllp" or not host or not port or parts.path.strip("/") or parts.query or parts.username:
        raise UsageError(expected)
    return Receiver(host, port)


@dataclass(frozen=True, slots=True)
class Answer:
    code: str
    """MSA-1: AA or CA accepted, AE, AR, CE or CR refused."""
    control_id: str
    """MSA-2: of the message that it answers."""
    text: str
    """What the receiver says of it, for people; empty where it says nothing."""
    er7: str

    @property
    def accepted(self) -> bool:
        return self.code in ACCEPTED


def answer_of(block: bytes) -> Answer:
    """An acknowledgement without its frame. MllpError for what is none."""
    er7 = block.decode("utf-8", "replace")
    segments = {line[:3]: line for line in reversed(er7.replace("\n", "\r").split("\r")) if line[:3] in ("MSA", "ERR")}
    try:
        msa = parse_segment(segments["MSA"], version=VERSION)
        code, control_id, text = (field.to_er7().strip() for field in (msa.msa_1, msa.msa_2, msa.msa_3))
        if not text and "ERR" in segments:
            err = parse_segment(segments["ERR"], version=VERSION)
            text = err.err_8.to_er7() or err.err_7.to_er7() or err.err_3.to_er7()
    except (KeyError, HL7apyException, AttributeError, IndexError, ValueError) as error:
        raise MllpError(f"got {printable(er7[:80])!r}, expected an acknowledgement with an MSA segment") from error
    if code not in (*ACCEPTED, *REFUSED):
        raise MllpError(f"got the acknowledgement code {printable(code)!r}, expected AA, AE, AR, CA, CE or CR")
    return Answer(code, control_id, text, er7)


class MllpClient:
    """A line to a receiver. MllpError from every method means that it is of no more use."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        timeout_s: float = 30.0,
        commit_wait_s: float = COMMIT_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect. `timeout_s`: for that, and for each answer."""
        self._timeout_s, self._commit_wait_s, self._clock = timeout_s, min(commit_wait_s, timeout_s), clock
        self._received = bytearray()
        try:
            self._socket = socket.create_connection((receiver.host, receiver.port), timeout_s)
        except OSError as error:
            raise MllpError(f"got '{_words(error)}' on connecting, expected a receiver that listens there") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def exchange(self, message: Hl7Message) -> Answer:
        """Send a message and wait for the answer to it; answers to others, which came late, are passed over.

        Where the receiver commits to it first (CA), the application's answer counts if it comes soon, else the
        commitment does: the receiver has taken the message over.
        """
        deadline = self._clock() + self._timeout_s
        committed: Answer | None = None
        others = ""
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(START + message.er7.encode() + END)
            while True:
                answer = answer_of(self._read_block(deadline))
                if answer.control_id != message.control_id:
                    others = f" to {message.control_id} (it answered {printable(answer.control_id[:40])!r})"
                    continue
                if answer.code != "CA":
                    return answer
                committed, deadline = answer, self._clock() + self._commit_wait_s
        except (OSError, MllpError) as error:
            if committed is not None:
                return committed
            if isinstance(error, MllpError):
                raise
            raise MllpError(f"got '{_words(error)}', expected an acknowledgement{others}") from error

    def _read_block(self, deadline: float) -> bytes:
        """The next message, without its frame."""
        while (end := self._received.find(END)) < 0:
            if len(self._received) > ANSWER_MAX_BYTES:
                raise MllpError(f"got more than {ANSWER_MAX_BYTES} bytes without an end, expected an acknowledgement")
            left = deadline - self._clock()
            if left <= 0.0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left)
            data = self._socket.recv(65536)
            if not data:
                raise MllpError("got the end of the line, expected an acknowledgement")
            self._received += data
        block = bytes(self._received[:end])
        del self._received[: end + len(END)]
        start = block.rfind(START)
        if start < 0:
            raise MllpError(f"got {printable(block[:40].decode('latin-1'))!r}, expected a block that begins with <VT>")
        return block[start + 1 :]


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
