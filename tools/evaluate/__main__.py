"""`python -m tools.evaluate MODEL`: what a model reaches; MODEL is a name of the zoo or a file with its card beside it.

    python -m tools.evaluate mobilenetv3-small --part validation --help
    python -m tools.evaluate runs/yolov5n-leukocyte/best.pt --long-sides 224,256

Its classes say what it is measured as; `--as TASK` after MODEL measures it as something else. Instead of MODEL:
`found-cells` or `magnification` and a detector, `adapt`, `mixed-slides`, `single-fields`, `slides`, `verdict`,
`verdict-runs`, or `unique-cells` and a simulated slide.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from engines.base import LeukostreamError
from engines.zoo.card import Card, parse_card
from engines.zoo.registry import zoo_card
from tools.architectures import mlcnn
from tools.commands import start
from tools.data import ABNORMAL_CLASSES, CELL_CLASSES
from tools.data.fields import CLASS_NAMES

MEASUREMENTS = (
    *("adapt", "found-cells", "magnification", "mixed-slides", "single-fields", "slides"),
    *("unique-cells", "verdict", "verdict-runs"),
)
TASKS = ("classifier", "eight-types", "published", "detector", "leukocyte-detector", "groups", "segmenter")


def task_of(model: str) -> str:
    """Which of `TASKS` a model is measured as. LeukostreamError or ValueError where nothing says so."""
    path = Path(model)
    if path.suffix == ".pt":
        return _task_of_checkpoint(path)
    if path.suffix in (".onnx", ".toml"):
        card_path = path.with_suffix(".toml")
        if not card_path.is_file():
            raise ValueError(f"{model}: got no card at {card_path}, expected one; or say what it is by --as TASK")
        return _task_of_card(parse_card(card_path.read_text("utf-8"), str(card_path), stem=path.stem))
    return _task_of_card(zoo_card(model))


def _task_of_card(card: Card) -> str:
    classes = tuple(entry.name for entry in card.classes)
    if card.task == "detector":
        return {CLASS_NAMES: "detector", tuple(mlcnn.GROUPS): "groups"}.get(classes, "leukocyte-detector")
    if card.task == "classifier":
        return {ABNORMAL_CLASSES: "classifier", CELL_CLASSES: "eight-types"}.get(classes, "published")
    return card.task


def _task_of_checkpoint(path: Path) -> str:
    from tools.train.loop import load_checkpoint

    state = load_checkpoint(path)
    names = tuple(state.get("description", {}).get("class_names", ()))
    return {CLASS_NAMES: "detector", CELL_CLASSES: "eight-types"}.get(names, "leukocyte-detector")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(f"{__doc__}\nTASK is one of {', '.join(TASKS)}; MODEL --help shows its options.")
        return 0 if words else 2
    if words[0] in MEASUREMENTS:
        return start("tools.evaluate", words[0], words[1:])
    try:
        if words[1:2] == ["--as"]:
            task = words[2] if words[2:] and words[2] in TASKS else ""
            if not task:
                raise ValueError(f"--as: got {' '.join(words[2:3])!r}, expected one of {', '.join(TASKS)}")
            del words[1:3]
        elif "--five-types" in words:
            task = "published"
        else:
            task = task_of(words[0])
    except (LeukostreamError, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"python -m tools.evaluate: {error}", file=sys.stderr)
        return 1
    return start("tools.evaluate", task, words)


if __name__ == "__main__":
    sys.exit(main())
