"""The counts that are compared: read from a journal or a table, and brought to the classes that both have."""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engines.base import UsageError
from streamer.counting.differential import NOT_LEUKOCYTES
from streamer.counting.flags import IMMATURE_GRANULOCYTE, LEFT_SHIFT
from streamer.journal import Recounted, StoredSession, opened, recounted
from streamer.records import UNCLASSIFIED

TABLE_MAX_BYTES = 16 << 20
SQLITE = b"SQLite format 3\0"

PARENTS = {
    "band neutrophil": "neutrophil",
    "segmented neutrophil": "neutrophil",
    **dict.fromkeys(LEFT_SHIFT, IMMATURE_GRANULOCYTE),
}
"""What a finer class belongs to where only one side tells it apart."""

SYNONYMS = {
    "band": "band neutrophil",
    "segmented": "segmented neutrophil",
    "atypical lymphocyte": "variant lymphocyte",
    "reactive lymphocyte": "variant lymphocyte",
    "nrbc": "erythroblast",
    "nucleated red cell": "erythroblast",
    "smudge": "smudge cell",
    "unidentified": UNCLASSIFIED,
}
"""Words of laboratories for our classes."""


@dataclass(frozen=True, slots=True)
class CountedSlide:
    """One count of one slide."""

    slide: str
    counts: Mapping[str, int]
    """White cells by class, `unclassified` included; 0 where a class was looked for, absent where it was not."""
    beside: Mapping[str, int] = field(default_factory=dict)
    """What is outside the percentages: nucleated red cells, smudge cells, artefacts."""
    parents: Mapping[str, str] = field(default_factory=lambda: PARENTS)
    stored: tuple[StoredSession, Recounted] | None = None
    """The session that it was counted from; None: of a table, which has no cells."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def read_counts(path: str, journals: contextlib.ExitStack) -> tuple[CountedSlide, ...]:
    """The slides of a journal or of a table `class,count` or `slide,class,count`.

    A journal stays open for its cells until `journals` is left. JournalError for it, UsageError for a table that can't
    be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(SQLITE))
            table = b"" if start == SQLITE else start + file.read(TABLE_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"compare {path}: got '{error.strerror}', expected a journal or a CSV file") from error
    if start != SQLITE:
        return _of_table(path, table)
    journal = journals.enter_context(opened(path))
    return tuple(_named_apart(counted_slide(stored) for stored in journal.sessions))


def counted_slide(stored: StoredSession) -> CountedSlide:
    """A session, counted again. JournalError for what can't be."""
    result, rules = recounted(stored), stored.rules
    parents = dict(zip(rules.subclass_names, rules.subclass_parents, strict=False))
    finer = set(parents.values())
    counts = {name: 0 for name in (*rules.class_names, *rules.subclass_names) if name not in finer}
    for cell in result.count.cells():
        if cell.counted:
            name = cell.subclass or cell.class_name
            counts[name] = counts.get(name, 0) + 1
    for cell in result.count.uncounted_cells():
        if cell.class_name in NOT_LEUKOCYTES:
            counts[cell.class_name] = counts.get(cell.class_name, 0) + 1
    counts.setdefault(UNCLASSIFIED, 0)
    return _parted(stored.name, counts, PARENTS | parents, (stored, result))


def _parted(
    slide: str,
    counts: Mapping[str, int],
    parents: Mapping[str, str],
    stored: tuple[StoredSession, Recounted] | None = None,
) -> CountedSlide:
    white = {name: count for name, count in counts.items() if name not in NOT_LEUKOCYTES}
    beside = {name: count for name, count in counts.items() if name in NOT_LEUKOCYTES and name != "platelet"}
    return CountedSlide(slide, white, beside, parents, stored)


def _of_table(path: str, data: bytes) -> tuple[CountedSlide, ...]:
    if len(data) > TABLE_MAX_BYTES:
        raise UsageError(f"compare {path}: got more than {TABLE_MAX_BYTES >> 20} MB, expected a table class,count")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"compare {path}: got bytes that are no UTF-8, expected a journal or a CSV file") from None
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    except csv.Error as error:
        raise UsageError(f"compare {path}: got {error}, expected a CSV file class,count") from None
    head = [name.lower() for name in rows[0]] if rows else []
    if not {"class", "count"} <= set(head):
        got = ",".join(rows[0]) if rows else "nothing"
        raise UsageError(f"compare {path}: got the first line {got!r}, expected class,count (or slide,class,count)")
    slides: dict[str, dict[str, int]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        values = dict(zip(head, row, strict=False))
        name, count = _class_of(values.get("class", "")), values.get("count", "")
        if not name or not (count.isascii() and count.isdecimal() and len(count) < 10):
            raise UsageError(
                f"compare {path}: line {number}: got {','.join(row)!r}, expected a class and a whole number of cells"
            )
        counts = slides.setdefault(values.get("slide", "") or Path(path).stem, {})
        if name in counts:
            raise UsageError(f"compare {path}: line {number}: got {name!r} twice, expected each class of a slide once")
        counts[name] = int(count)
    return tuple(_parted(slide, counts, PARENTS) for slide, counts in slides.items())


def _class_of(text: str) -> str:
    """Our name of a class, of its plural and of what laboratories call it."""
    name = " ".join(text.lower().split())
    name = name.removesuffix("s") if not name.endswith("ss") else name
    return SYNONYMS.get(name, name)


def _named_apart(slides: Iterable[CountedSlide]) -> Iterable[CountedSlide]:
    """With a number behind a name that was there before, as of the slides of one camera."""
    seen: Counter[str] = Counter()
    for one in slides:
        seen[one.slide] += 1
        yield one if seen[one.slide] == 1 else replace(one, slide=f"{one.slide} #{seen[one.slide]}")


def paired(
    first: Sequence[CountedSlide], second: Sequence[CountedSlide]
) -> tuple[list[tuple[CountedSlide, CountedSlide]], list[str]]:
    """The slides that both have, by name, and the names of the others; one slide each is the same slide.

    UsageError where there is none in common.
    """
    if len(first) == len(second) == 1:
        return [(first[0], second[0])], []
    by_name = {one.slide: one for one in second}
    pairs = [(one, by_name[one.slide]) for one in first if one.slide in by_name]
    both = {one.slide for one, _ in pairs}
    alone = [one.slide for one in (*first, *second) if one.slide not in both]
    if not pairs:
        names = [", ".join(one.slide for one in side[:5]) or "no slide" for side in (first, second)]
        raise UsageError(f"compare: got the slides {names[0]} and {names[1]}, expected some in both by name")
    return pairs, alone


def folded(first: CountedSlide, second: CountedSlide) -> tuple[CountedSlide, CountedSlide, Mapping[str, str]]:
    """Both with a finer class counted as its parent wherever one of them has the parent as a class of its own; and
    that class by finer one."""
    parents = {**first.parents, **second.parents}
    names = {*first.counts, *second.counts}
    into = {name: parent for name, parent in parents.items() if parent in names}
    return _into(first, into), _into(second, into), into


def _into(one: CountedSlide, into: Mapping[str, str]) -> CountedSlide:
    counts: dict[str, int] = {}
    for name, count in one.counts.items():
        kept = into.get(name, name)
        counts[kept] = counts.get(kept, 0) + count
    return replace(one, counts=counts)
