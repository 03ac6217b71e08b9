"""One shard, from its pictures to its journal and its tables; runs in a process of its own, on this machine or
another."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engines.base import LeukostreamError
from streamer import __version__
from streamer.commands.output import output_folder, reporting, writing
from streamer.commands.reanalyse.files import Files
from streamer.commands.reanalyse.shards import Shard
from streamer.commands.run.build import run
from streamer.config import Config
from streamer.interop import parquet
from streamer.interop.sessions import exported
from streamer.journal import JournalReader, StoredSession, decoded, opened
from streamer.protocol.messages import EndMessage


@dataclass(frozen=True, slots=True)
class Job:
    shard: Shard
    out: str
    config: Config
    """Of this shard alone, less its source and journal."""
    sha256: str | None = None
    """What its files were when it was done; None: it was not."""
    program: str = __version__
    """Of who gives it."""

    @property
    def journal(self) -> Path:
        return Path(self.out) / f"{self.shard.name}.journal"

    def table(self, name: str) -> Path:
        """`name`: of a file of Parquet, such as cells.parquet."""
        return Path(self.out) / Path(name).stem / f"{self.shard.name}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    shard: str
    fault: str | None = None
    """One line; None: it is done, and has what follows."""
    listing: str = ""
    sha256: str = ""
    frames: int = 0
    cells: int = 0
    """White cells of the differential."""
    verdict: str = ""


def analyse(job: Job) -> Outcome:
    """Run the shard, or go on with it. What a run says to people goes to OUT/NAME.log."""
    name = job.shard.name
    try:
        if job.program != __version__:
            raise LeukostreamError(
                f"got a worker with leukostream {__version__}, expected {job.program}; install that version on it"
            )
        with reporting("-o", job.out, "a folder that can be written"):
            log = (Path(job.out) / f"{name}.log").open("a", encoding="utf-8")
        with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                return _analysed(job)
            except Exception:
                traceback.print_exc()
                raise
    except LeukostreamError as error:
        return Outcome(shard=name, fault=str(error))
    except Exception as error:  # a fault of ours, or of a library, in one slide of many
        return Outcome(shard=name, fault=f"got {type(error).__name__}: {error}, expected none; see {name}.log")


def _analysed(job: Job) -> Outcome:
    files = Files.of(job.shard.address)
    with reporting(job.shard.name, job.shard.address, "files that can be read"):
        listing, sha256 = files.listing(), files.sha256()
    if job.sha256 not in (None, sha256):
        raise LeukostreamError(
            f"{job.shard.address}: got other contents than when it was analysed, expected the same; give another"
            f" folder, or remove {job.journal.name} to analyse it anew"
        )
    if _end_of(job.journal) != "finished":
        name = job.shard.name
        source, slide = f"{name}={job.shard.address}", {name: job.shard.slide}
        run(msgspec.structs.replace(job.config, source=(source,), journal=str(job.journal)), known=slide)
        if Files.of(job.shard.address).listing() != listing:
            raise LeukostreamError(f"{job.shard.address}: got files that changed meanwhile, expected whole ones")
    with opened(str(job.journal)) as journal:
        stored = journal.sessions[-1]
        end = _end_message(stored)
        if end is None or end.state != "finished":
            raise LeukostreamError("got no end" if end is None else f"{end.state}: {end.reason}")
        session = exported(stored)
        for name, content in parquet.files([session]):
            path = job.table(name)
            output_folder(str(path.parent))
            with writing(str(path)) as file:
                file.write(content)
    found = session.result.differential
    return Outcome(
        shard=job.shard.name,
        listing=listing,
        sha256=sha256,
        frames=found.frames,
        cells=found.total,
        verdict=found.verdict.state if found.verdict is not None else "",
    )


def _end_of(journal: Path) -> str | None:
    """How its session ended; None: it has not, or there is none yet."""
    if not journal.exists():
        return None
    with JournalReader(journal) as reader:
        end = _end_message(reader.sessions[-1]) if reader.sessions else None
    return None if end is None else end.state


def _end_message(stored: StoredSession) -> EndMessage | None:
    header = stored.last_message("end") if stored.ended else None
    message = None if header is None else decoded(stored, header)
    return message if isinstance(message, EndMessage) else None
