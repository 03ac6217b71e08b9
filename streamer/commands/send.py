"""`leukostream send`: the results of a journal to a laboratory system, as HL7 over MLLP, until it acknowledges them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines.base import UsageError
from streamer.commands.options import Parser, add_production_option, positive, seconds
from streamer.commands.output import remark, say
from streamer.commands.slide_info import add_wbc_options, with_wbc
from streamer.interop.formats import needed
from streamer.interop.result import result_of
from streamer.interop.sessions import exported
from streamer.journal import opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str
    to: str
    format: Literal["oul", "oru"]
    timeout: float
    attempts: int
    pseudonymise: bool
    production: bool
    wbc: list[str] | None
    """`[SLIDE=]N` each; None: those of the run."""
    wbc_includes_nrbc: bool | None


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote; JOURNAL.sent keeps what was sent")
    parser.add_argument("--to", metavar="mllp://HOST:PORT", required=True, help="the receiver; MLLP is not encrypted")
    parser.add_argument("--format", choices=("oul", "oru"), default="oul", help="OUL^R22, or ORU^R01 for older systems")
    parser.add_argument("--timeout", metavar="SECONDS", type=seconds, default=30.0, help="for an answer")
    parser.add_argument(
        "--attempts", metavar="N", type=positive, default=5, help="for a message, before it is given up"
    )
    parser.add_argument(
        "--pseudonymise", action="store_true", help="names of slides, people, instruments and sources stay here"
    )
    add_wbc_options(parser, "[SLIDE=]", action="extend", nargs="+")
    add_production_option(parser)


def main(options: Options) -> int:
    """1 where a receiver refused a message or did not answer."""
    with needed("send", "hl7"):
        from streamer.interop.delivery import Delivery
        from streamer.interop.hl7_messages import hl7_message
        from streamer.interop.mllp import MllpClient, receiver_of
        from streamer.interop.outbox import Outbox
    receiver = receiver_of(options.to)
    if not options.timeout:
        raise UsageError("--timeout: got 0, expected seconds to wait for an answer")
    refused = 0
    with opened(options.journal) as journal, Outbox(Path(f"{options.journal}.sent")) as outbox:
        meant = with_wbc(journal.sessions, options.wbc or (), bool(options.wbc_includes_nrbc))
        results = [result_of(exported(stored, options.pseudonymise, options.production)) for stored in meant]
        stored = [
            outbox.put(receiver, hl7_message(options.format, result), str(result.subject), options.format)
            for result in results
        ]
        delivery = Delivery(
            outbox,
            receiver,
            options.attempts,
            connect=lambda to: MllpClient(to, timeout_s=options.timeout),
        )
        for result, (one, answer) in zip(results, delivery.send(stored), strict=True):
            what = f"{result.slide}: message {one.message.control_id}"
            if answer is None:
                say(f"{what} was acknowledged before ({one.code}, {one.answered_utc}) and is not sent again")
            elif answer.accepted:
                say(f"{what} acknowledged by {receiver} ({answer.code})")
            else:
                refused += 1
                said = f": {answer.text}" if answer.text else ""
                remark(f"{what}: got {answer.code}{said}, expected AA: see what {receiver} can't take, then send again")
    return 1 if refused else 0
