"""`leukostream recount`: the differential of a journal, counted again from its frames by the code that counted them
first, and whether it equals what was published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamer.commands.options import Parser
from streamer.commands.output import remark, say
from streamer.commands.progress import steps
from streamer.counting.morphometry import summary
from streamer.dashboard import format_differential
from streamer.journal import SeenFrame, differences, last_published, opened, recounted
from streamer.protocol.factory import MessageFactory, new_id
from streamer.report.review import review_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote")


def main(options: Options) -> int:
    return recount(options.journal)


def recount(path: str) -> int:
    """Print the differential of each session; 1 where one is not what was published."""
    differing = 0
    with opened(path) as journal:
        for stored in journal.sessions:
            with steps(f"{stored.source}: frames", stored.frame_count) as step:
                counted = recounted(stored, _then(step))
            factory = MessageFactory(stored.source, session=stored.id, run_id=new_id())
            print(format_differential(factory.differential(counted.differential)))
            if stored.rules.segmenter is not None:
                say(summary(counted.count.cells()))
            review = review_of(counted)
            say(review.line or review.state)
            for fault in counted.faults:
                remark(f"journal {path}: session of {stored.source!r}: {fault}")
            differing += bool(counted.faults)
            published = last_published(stored)
            if published is None or counted.last_due is None:
                say("no differential was published yet")
                continue
            again = factory.differential(counted.last_due)
            what = "the final differential" if published.final else "the last differential"
            if published.version.startswith("1."):
                print(f"{what} published has other rules, those of protocol {published.version}: not compared")
                continue
            changes = differences(again, published)
            if not changes:
                say(f"equal to {what} published, {published.published_utc}")
                continue
            differing += 1
            program = stored.runs()[-1].program
            remark(
                f"journal {path}: session of {stored.source!r}: got {'; '.join(changes)} than {what}"
                f" published, expected the same; it was counted by leukostream {program}: recount with that version"
            )
    return 1 if differing else 0


def _then(step: Callable[[], None]) -> Callable[[SeenFrame], None]:
    return lambda seen: step()
