"""What people say of a slide on the command line: its name and what else, and a white-cell count from elsewhere.

Every text is checked here as SlideInfo checks it, so that what is wrong is one line that names its option.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from engines.base import InvalidTomlError, UsageError, near, parse_toml
from streamer.commands.options import Group, flag
from streamer.commands.output import remark
from streamer.config import FILE_MAX_BYTES, in_plain_words
from streamer.records import LEAST_WBC, MOST_WBC, SlideInfo

if TYPE_CHECKING:
    from streamer.journal import StoredSession

FIELDS = MappingProxyType(
    {
        "slide": "name",
        "accession": "accession",
        "operator": "operator",
        "instrument": "instrument",
        "stain": "stain",
        "magnification": "magnification",
    }
)
"""By option, the field of SlideInfo that it is."""

SCANNED = "-"
"""The value that stands for a line of standard input, where a scanner types."""

ELSEWHERE = ("slide", "accession")
"""Options whose value may come from a scanner, or a label."""

NO_PERSON = "no patient's name, number or date of birth: none is needed, and all of it is stored and published"

_HELP = {
    "slide": "the laboratory's name of it; -: a line from standard input, as a barcode scanner types it",
    "accession": "number of the order or specimen; - likewise",
    "operator": "who is at the microscope: initials",
    "instrument": "microscope or camera",
    "stain": "such as May-Grunwald-Giemsa",
    "magnification": "of the objective, such as 100x oil",
}
_FILE_KEYS = ("name", "accession", "operator", "instrument", "stain", "magnification", "fields", "wbc")
_FILE_FLAG = "wbc_includes_nrbc"


def add_slide_options(group: Group, source: str = "", **settings: Any) -> None:
    """`source`: "[SOURCE=]" where there may be several. `settings`: of argparse, for all of them."""
    for option, text in _HELP.items():
        also = (
            "; barcode: the QR code or barcode of the first frame"
            if source and option in ("slide", "accession")
            else ""
        )
        group.add_argument(f"--{option}", metavar=f"{source}TEXT", help=text + also, **settings)
    group.add_argument(
        "--slide-info",
        metavar=f"{source}FILE.toml",
        help=f"the same as keys, name for --slide, and [fields] of your own; {NO_PERSON}",
        **settings,
    )


def add_wbc_options(group: Group, source: str = "", **settings: Any) -> None:
    group.add_argument(
        "--wbc",
        metavar=f"{source}N",
        help="white cells in 10^9/L, counted elsewhere: absolute counts are given beside the percentages",
        **settings,
    )
    flag(group, "--wbc-includes-nrbc", "that count includes nucleated red cells, and is corrected for them")


def text_of(option: str, text: str) -> str:
    """UsageError for one that SlideInfo does not take."""
    text = text.strip()
    try:
        msgspec.convert({"name": text}, SlideInfo)
    except msgspec.ValidationError:
        got = f"{len(text)} characters" if text.isprintable() else "control characters"
        shown = f"{text[:40]!r}{'…' if len(text) > 40 else ''}"
        raise UsageError(f"{option} {shown}: got {got}, expected 1 to 80 printable characters") from None
    return text


def white_cells_of(text: str | float, option: str = "--wbc") -> float:
    """In 10^9/L; UsageError for what can be no count."""
    try:
        count = float(text)
    except ValueError:
        count = -1.0
    if not LEAST_WBC <= count <= MOST_WBC:
        raise UsageError(
            f"{option}: got {str(text)[:40]!r}, expected white cells in 10^9/L, {LEAST_WBC:g} to {MOST_WBC:g}: 6.2, not"
            " 6200 a microlitre"
        )
    return count


def scanned(option: str, of: str) -> str:
    """A line of standard input, as a scanner or a person types it, for what `of` names; UsageError without."""
    what = f"{'name' if option == '--slide' else option.removeprefix('--')} of {of}"
    remark(f"{option} -: scan or type the {what}, then Enter")
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line.strip():
        raise UsageError(f"{option} -: got no line on standard input, expected the {what}")
    return text_of(f"{option} -", line.strip("\r\n"))


def read_slide_info(path: str) -> dict[str, Any]:
    """The fields of SlideInfo that a TOML file gives; UsageError for what can't be read or meant."""
    where = f"--slide-info {path}"
    try:
        if not Path(path).is_file():  # before it is opened, which would wait for the writer of a pipe
            raise UsageError(f"{where}: got no regular file, expected a TOML file")
        with open(path, "rb") as file:
            said = parse_toml(file.read(FILE_MAX_BYTES))
    except OSError as error:
        raise UsageError(f"{where}: got {error.strerror}, expected a readable TOML file") from error
    except InvalidTomlError as error:
        raise UsageError(f"{where}: got {error}, expected a valid TOML file") from error
    known = (*_FILE_KEYS, _FILE_FLAG)
    for key in said:
        if key not in known:
            more = near(key, known) or f"; expected some of {', '.join(known)}, and your own under [fields]"
            raise UsageError(f"{where}: got the key {key!r}, which does not exist{more}")
    if isinstance(said.get("wbc"), int | float):
        said["wbc"] = white_cells_of(said["wbc"], f"{where}: wbc")
    slide_info_of(said, where)
    if said.get(_FILE_FLAG) and "wbc" not in said:
        raise UsageError(f"{where}: got {_FILE_FLAG} without wbc, expected both")
    return said


def slide_info_of(said: Mapping[str, Any], where: str) -> SlideInfo:
    try:
        return msgspec.convert(said, SlideInfo)
    except msgspec.ValidationError as error:
        fault, _, place = str(error).partition(" - at `$")
        name = place.strip("`.").removesuffix("[...]") or "a text"
        raise UsageError(f"{where}: {name}: {in_plain_words(fault)}; see leukostream run --help") from None


def said_of_slide(given: Mapping[str, str | None], wbc: str | float | None, includes_nrbc: bool) -> dict[str, Any]:
    """The fields of SlideInfo that options of one slide give, those of a file first. `given`: by option, "slide_info"
    among them."""
    file = given.get("slide_info")
    said = {} if file is None else read_slide_info(file)
    for option, field in FIELDS.items():
        if (text := given.get(option)) is not None:
            said[field] = text_of(f"--{option}", text)
    if wbc is not None:
        said |= {"wbc": white_cells_of(wbc), _FILE_FLAG: False}
    if includes_nrbc and said.get("wbc") is not None:
        said[_FILE_FLAG] = True
    return said


def with_wbc(sessions: Iterable[StoredSession], given: Sequence[str], includes_nrbc: bool) -> list[StoredSession]:
    """Sessions with the white-cell counts that are given now, `[SLIDE=]N` each, in place of those they have. SLIDE is a
    slide's name, its source, or its session. UsageError for one that is not of exactly one session."""
    sessions = list(sessions)
    for value in given:
        name, equals, text = value.rpartition("=")
        count = white_cells_of(text)
        meant = [one for one in sessions if not equals or name in (one.name, one.source, one.id)]
        if len(meant) != 1:
            names = ", ".join(one.name if _alone(one, sessions) else one.id for one in sessions)
            raise UsageError(
                f"--wbc {value}: got a count for {len(meant) or 'none'} of {len(sessions)} slides, expected one slide"
                f" each, as SLIDE=N with SLIDE one of: {names}"
            )
        place = sessions.index(meant[0])
        slide = msgspec.structs.replace(meant[0].slide, wbc=count, wbc_includes_nrbc=False)
        sessions[place] = replace(meant[0], slide=slide)
    if includes_nrbc:
        if all(one.slide.wbc is None for one in sessions):
            raise UsageError("--wbc-includes-nrbc: got no white-cell count, expected --wbc N, or one of the run")
        including = [msgspec.structs.replace(one.slide, wbc_includes_nrbc=True) for one in sessions]
        sessions = [
            replace(one, slide=slide) if slide.wbc is not None else one
            for one, slide in zip(sessions, including, strict=True)
        ]
    return sessions


def _alone(session: StoredSession, sessions: Sequence[StoredSession]) -> bool:
    return sum(one.name == session.name for one in sessions) == 1
