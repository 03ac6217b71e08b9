"""Make the one table of all systems, docs/results.md, .json and a picture, from the cards and docs/results/*.json.

    python -m tools.report results
    python -m tools.report results --measure-time ml-cnn resnet50
    python -m tools.report results --pictures runs/pictures

Nothing is trained or measured, except on request: --measure-time takes the processor time of the models whose files are
here (all, or those named) on one thread of this machine; --pictures writes confusion matrices and the worst mistakes of
the classifiers into a folder, which must lie outside the repository or be ignored by it. What needs a model's file (its
size, parameters, arithmetic, time) and is not here now is taken from the table as it stands, if that was the same file.
A system of tools/report/systems.py without a card is listed as one without weights; a card that no publication belongs
to comes last.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnx import ModelProto

from engines.base import CardError
from engines.zoo.card import Card
from engines.zoo.registry import compact, file_of, find, models, place, zoo_card, zoo_names
from engines.zoo.store import Place
from tools.commands import command_parser
from tools.report import cost, figures, markdown, plot
from tools.report.systems import NOT_REBUILT, SYSTEMS, System

DOCS = Path(__file__).resolve().parents[2] / "docs"
NO_GPU = "no GPU was at hand when the others were measured"
COMMAND = "python -m tools.report results"
STATUS: Mapping[Place, str] = {"shipped": "ships", "in the clone": "in a clone, or pulled"}
"""Of the models whose files are here."""


def graph_of(card: Card) -> tuple[ModelProto, int] | None:
    """The graph of a model as the stream runs it and the bytes of its file; None where the file is not here, or the
    cache folder has another one of its name."""
    if place(card) == "not here":
        return None
    try:
        model = find(card.name, card.task)
    except CardError:
        if place(card) in STATUS:
            raise
        return None
    return (compact(model) if card.task == "detector" else model.proto), len(file_of(card).read_bytes())


def size_of(card: Card, before: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes, parameters and arithmetic of a model: of its file, else as noted before of the same file, else None."""
    keys = ("file_bytes", "parameters", "flops", "input_px")
    if before.get("sha256") == card.sha256 and before.get("parameters") is not None:
        return {key: before[key] for key in keys}
    found = graph_of(card)
    if found is None:
        return dict.fromkeys(keys)
    model, size = found
    counted = cost.cost_of(card, model)
    return {
        "file_bytes": size,
        "parameters": counted.parameters,
        "flops": counted.flops,
        "input_px": [counted.width_px, counted.height_px],
    }


def times_of(card: Card, before: Mapping[str, Any], rounds: int) -> dict[str, Any] | None:
    """Times of a model: measured now where `rounds` is not 0 and its file is here, else as noted before of the same
    file, else None."""
    found = graph_of(card) if rounds else None
    if found is not None:
        return {"machine": cost.machine(), **cost.cpu_times(card, found[0], rounds)}
    return before.get("cpu") if before.get("sha256") in weights_of(card) else None


def weights_of(card: Card) -> set[Any]:
    """The SHA-256 of the file, and of that whose weights it stores anew."""
    return {card.sha256, card.storage.get("was", card.sha256)}


def trained(card: Card) -> dict[str, Any]:
    """How a model was made: the data, the commands, what the card notes."""
    training = card.training
    commands = list(card.build) or [training[key] for key in ("command",) if key in training]
    notes = training.get("notes", ())
    return {
        "data": list(training.get("data", ())),
        "licence": card.licence,
        "commands": commands,
        "notes": [notes] if isinstance(notes, str) else list(notes),
    }


def row(
    system: System, card: Card | None, results: Sequence[figures.ResultFile], before: Mapping[str, Any], rounds: int
) -> dict[str, Any]:
    """One system of the document."""
    entry: dict[str, Any] = {
        "name": system.name,
        "publication": system.publication,
        "what": system.what,
        "published": [asdict(p) for p in system.published],
        "difference": system.difference,
    }
    if card is None:
        return {**entry, "status": "no weights yet"}
    measured = list(figures.figures_of(card, card.figures, len(card.classes)))
    for file in results:
        if file.model == card.name and file.sha256 in weights_of(card):
            measured += figures.figures_of(card, file.figures, len(file.classes))
    return {
        **entry,
        "status": STATUS.get(place(card), "built by its command, or pulled"),
        "task": card.task,
        "architecture": card.architecture,
        "sha256": card.sha256,
        "classes": list(card.class_names),
        **size_of(card, before),
        "trained": trained(card),
        "figures": [figure.as_dict() for figure in measured],
        "cpu": times_of(card, before, rounds),
        "gpu": None,
        "gpu_why": NO_GPU,
    }


def document(before: Mapping[str, Any], results: Path, measure: Mapping[str, int]) -> dict[str, Any]:
    """The whole table. before: the document as it stands; measure: rounds of measuring time by system, 0 for none."""
    noted = {entry["name"]: entry for entry in before.get("systems", ())}
    cards = {name: zoo_card(name) for name in zoo_names()}
    read = figures.result_files(results)
    known = {system.name for system in SYSTEMS}
    systems = [*SYSTEMS, *(System(c.name, "", c.summary) for c in models() if c.name not in known)]
    return {
        "command": COMMAND,
        "systems": [
            row(system, cards.get(system.name), read, noted.get(system.name, {}), measure.get(system.name, 0))
            for system in systems
        ],
        "not_rebuilt": [asdict(entry) for entry in NOT_REBUILT],
    }


def text_of(found: Mapping[str, Any]) -> str:
    """The document as it is kept in docs/results.json."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def outside_of_repository(folder: Path) -> Path:
    """`folder`; ValueError where git would take what is written there."""
    root = DOCS.parent
    try:
        inside = folder.resolve().relative_to(root)
    except ValueError:
        return folder
    ignored = subprocess.run(["git", "-C", str(root), "check-ignore", "-q", str(inside / "x.png")], check=False)
    if ignored.returncode:
        raise ValueError(
            f"--pictures: got {folder} in the repository, expected a folder elsewhere, or one that git ignores: "
            "the pictures show cells of data that don't belong in it"
        )
    return folder


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.report results", __doc__)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of results.md, results.json and results/")
    parser.add_argument("--measure-time", nargs="*", metavar="NAME", help="systems; all that are here without a name")
    parser.add_argument("--rounds", type=int, default=9, help="of measuring time")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write confusion matrices and worst mistakes here")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="systems of --pictures")
    parser.add_argument("--limit", type=int, help="cells a set at most in --pictures")
    options = parser.parse_args(argv)
    path = options.docs / "results.json"
    before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    named = zoo_names() if options.measure_time == [] else options.measure_time or []
    found = document(before, options.docs / "results", dict.fromkeys(named, options.rounds))
    (options.docs / "figures").mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(found), "utf-8")
    (options.docs / "results.md").write_text(markdown.page(found), "utf-8")
    plot.draw(found, options.docs / "figures" / "results.png")
    for entry in found["systems"]:
        print(f"{entry['name']}: {entry['status']}, {len(entry.get('figures', ()))} sets", file=sys.stderr)
    if options.pictures:
        from tools.report.pictures import write

        for card in models():
            wanted = not options.only or card.name in options.only
            if card.task == "classifier" and wanted and place(card) != "not here":
                write(card.name, outside_of_repository(options.pictures), options.limit)
    return 0
