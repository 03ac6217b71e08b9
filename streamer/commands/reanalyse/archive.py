"""A folder of results, filled shard by shard: what is done is left, what is half done goes on, what fails is a line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import msgspec

from engines.backends.onnxruntime import Threads
from engines.base import LeukostreamError, UsageError
from streamer.analysis.models import load_models
from streamer.commands.output import output_folder, remark, say
from streamer.commands.reanalyse.analysing import Job, Outcome
from streamer.commands.reanalyse.files import Files
from streamer.commands.reanalyse.manifest import Manifest, ShardRecord, alone, read_manifest
from streamer.commands.reanalyse.shards import Shard, shards_of
from streamer.commands.run.build import with_site
from streamer.commands.run.slides import slides_of
from streamer.commands.run.sources import ignored_boxes
from streamer.config import Config
from streamer.interop import parquet
from streamer.journal import rules_of
from streamer.sources.address import split_name

Spread = Callable[[Sequence[Job]], Generator[tuple[Job, Outcome | str]]]
"""Where jobs are done: each with its outcome, or why it has none, in the order in which they end."""

OF_RUN = (
    *("source", "mode", "wait", "stop_after_s", "publish", "jsonl", "journal", "record", "report", "metrics"),
    *("control", "keys"),
)
"""Fields of Config that mean nothing here."""

WITHOUT_WEIGHT = ("resume", "dashboard", "workers")
"""Those that are set here and decide no result."""

MODELS = ("detector", "classifier", "segmenter")
BY_SOURCE = (
    *(*MODELS, "um_per_px", "ignore_box", "wbc", "slide_info"),
    *("slide", "accession", "operator", "instrument", "stain", "magnification"),
)
"""Those with values `[NAME=]TEXT`."""


def reanalyse(sources: Sequence[str], folder: str, config: Config, spread: Spread) -> int:
    """The exit status: 1 where a slide could not be analysed. UsageError for what can't be meant, and for a folder of
    results of other models or options."""
    _refuse_options_of_run(config)
    config = _anywhere(with_site(config, remark))
    out = output_folder(folder).absolute()
    with alone(out):
        manifest = read_manifest(out)
        shards = shards_of(sources, {} if manifest is None else manifest.names)
        wanted = Manifest(options=_decisive(config), models=_models(config, shards))
        if manifest is None:
            manifest = wanted
        manifest.check(wanted, out)
        try:
            return _filled(out, manifest, shards, config, spread)
        except KeyboardInterrupt:
            remark("stopped; the same line goes on from here")
            raise


def _filled(out: Path, manifest: Manifest, shards: Sequence[Shard], config: Config, spread: Spread) -> int:
    names = [shard.name for shard in shards]
    faults: dict[str, str] = {}
    jobs = []
    for shard in shards:
        job = Job(shard, str(out), _of_shard(config, shard.name, names))
        try:
            if _is_to_do(job, manifest):
                jobs.append(job)
        except LeukostreamError as error:
            faults[shard.name] = str(error)
    manifest.write(out)
    kept = len(shards) - len(jobs) - len(faults)
    if kept:
        remark(f"{kept} of {len(shards)} slides are done in {out} already")
    with contextlib.closing(spread(jobs)) as outcomes:
        for job, outcome in outcomes:
            name = job.shard.name
            fault = outcome if isinstance(outcome, str) else outcome.fault
            if fault is not None or isinstance(outcome, str):
                faults[name] = fault or ""
                say(f"{name}: failed")
                continue
            manifest.shards[name] = ShardRecord(
                address=job.shard.address, listing=outcome.listing, sha256=outcome.sha256, done=True
            )
            manifest.write(out)
            say(f"{name}: {outcome.frames} frames, {outcome.cells} white cells, {outcome.verdict or 'no verdict'}")
    for name, fault in faults.items():
        remark(f"{name}: {fault}")
    done = len(shards) - len(faults)
    say(f"{out}: {done} of {len(shards)} slides, {kept} of them done before, {len(faults)} failed")
    return 1 if faults else 0


def _is_to_do(job: Job, manifest: Manifest) -> bool:
    """Notes in the manifest that the shard is begun. LeukostreamError where it can't be."""
    shard = job.shard
    if shard.fault is not None:
        raise LeukostreamError(shard.fault)
    try:
        listing = Files.of(shard.address).listing()
    except OSError as error:
        raise LeukostreamError(f"{shard.address}: got '{error.strerror}', expected files that can be read") from error
    known = manifest.shards.get(shard.name)
    if known is None or known.address != shard.address:
        if job.journal.exists():
            raise LeukostreamError(
                f"{job.journal}: got a journal that is none of {shard.address}, expected none; give another folder"
            )
    elif known.listing != listing and not known.done and job.journal.exists():
        raise LeukostreamError(
            f"{shard.address}: got other files than it was begun with, expected the same; remove {job.journal} to begin"
            " anew"
        )
    elif known.done and known.listing == listing and all(path.exists() for path in _results(job)):
        return False
    sha256 = None if known is None or not job.journal.exists() else known.sha256
    manifest.shards[shard.name] = ShardRecord(address=shard.address, listing=listing, sha256=sha256)
    return True


def _results(job: Job) -> list[Path]:
    return [job.journal, *(job.table(name) for name in parquet.NAMES)]


def _refuse_options_of_run(config: Config) -> None:
    usual = Config()
    for name in OF_RUN:
        if getattr(config, name) != getattr(usual, name):
            raise UsageError(f"--config: got {name}, expected no option that says where a run reads and writes")


def _anywhere(config: Config) -> Config:
    """With paths that hold in whatever folder a worker is, nothing drawn, and one core a slide."""
    given = {name: _absolute(getattr(config, name)) for name in (*MODELS, "slide_info")}
    return msgspec.structs.replace(config, **given, mode="analysis", resume=True, dashboard=False, workers=1)


def _absolute(value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return tuple(str(_absolute(one)) for one in value)
    name, path = split_name(value, "")
    path = os.path.abspath(path) if os.path.isfile(path) else path
    return path if name is None else f"{name}={path}"


def _decisive(config: Config) -> dict[str, object]:
    """What decides results and is not as usual, by field of Config."""
    fields, usual = msgspec.to_builtins(config), msgspec.to_builtins(Config(mode="analysis"))
    return {
        name: value for name, value in fields.items() if value != usual[name] and name not in (*WITHOUT_WEIGHT, *MODELS)
    }


def _models(config: Config, shards: Sequence[Shard]) -> dict[str, str | None]:
    """Those that will run, by name, and their hashes. Errors of models and options, once and not of each slide."""
    names = [shard.name for shard in shards]
    slides_of(config, names)
    ignored_boxes(config.ignore_box, names)
    here = msgspec.structs.replace(config, backend="onnxruntime")  # a worker may have another one
    loaded = load_models(here, names, Threads(1, 1), lambda line: None)
    rules = [rules_of(one.detector, one.classifier, one.segmenter) for one in dict.fromkeys(loaded.values())]
    models = (model for rule in rules for model in (rule.detector, rule.classifier, rule.segmenter))
    return {model.name: model.sha256 for model in models if model is not None}


def _of_shard(config: Config, name: str, names: Sequence[str]) -> Config:
    """Without the values that are of other shards."""
    own = {}
    for option in BY_SOURCE:
        given = getattr(config, option)
        if isinstance(given, tuple):
            own[option] = tuple(text for text in given if _head(text, names) in (None, name))
    return msgspec.structs.replace(config, **own)


def _head(text: str, names: Sequence[str]) -> str | None:
    """The shard that a value `[NAME=]TEXT` is of; None: of all."""
    head, equals, _ = text.partition("=")
    return head if equals and head in names else None
