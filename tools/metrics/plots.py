"""Plots of a detector: loss over steps, precision over recall, confusion matrix, recall by cell size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from tools.metrics.average_precision import ClassTally, precision_recall


def plot_loss(log: Path, file: Path) -> None:
    """The terms of the loss and the validation scores of a run's results.jsonl over its steps."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    steps = [line["step"] for line in lines]
    for name in ("loss", "box", "objectness", "classes"):
        left.plot(steps, [line[name] for line in lines], label=name)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    measured = [line for line in lines if "results" in line]
    for name in measured[0]["results"] if measured else ():
        entries = [line["results"][name] for line in measured]
        at = [line["step"] for line in measured]
        if entries[0]["map50"] is not None:
            right.plot(at, [entry["map50"] for entry in entries], "o-", label=f"{name} mAP@.5")
            right.plot(at, [entry["map50_95"] for entry in entries], "o-", label=f"{name} mAP@[.5:.95]")
        else:
            right.plot(at, [entry["classes"]["WBC"]["recall"] for entry in entries], "o-", label=f"{name} WBC recall")
    right.set(xlabel="step", ylabel="validation", ylim=(0, 1.02))
    _finish(file, left, right)


def plot_precision_recall(tallies: Mapping[str, Sequence[ClassTally]], class_names: Sequence[str], file: Path) -> None:
    """Precision over recall at IoU .5 of every class with labels, by set."""
    _, axes = pyplot.subplots(figsize=(6, 5))
    for name, members in tallies.items():
        for label, counts in zip(class_names, members, strict=True):
            scores, correct = counts.joined()
            if counts.positives and len(scores):
                precision, recall = precision_recall(scores, correct[0], counts.positives)
                axes.plot(recall, precision, label=f"{name} {label}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    _finish(file, axes)


def plot_confusion(tables: Mapping[str, np.ndarray], class_names: Sequence[str], file: Path) -> None:
    """Tables (classes+1, classes+1) as `measure.confusion` makes them, side by side, by set."""
    names = [*class_names, "nothing"]
    _, axes = pyplot.subplots(1, len(tables), figsize=(4 * len(tables), 4), squeeze=False)
    for place, (title, table) in zip(axes[0], tables.items(), strict=True):
        place.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*table.shape):
            if row + column < 2 * len(class_names):
                place.text(column, row, str(table[row, column]), ha="center", va="center", color="darkorange")
        place.set(title=title, xticks=range(len(names)), yticks=range(len(names)), xlabel="detected", ylabel="label")
        place.set_xticklabels(names, rotation=30)
        place.set_yticklabels(names)
    _finish(file)


def plot_by_size(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    trained_px: tuple[float, float] | None,
    file: Path,
    quantity: str = "recall",
) -> None:
    """`quantity` over the diameter of red cells in input px, (diameter, value) points by name; the range that the card
    names is shaded."""
    _, axes = pyplot.subplots(figsize=(7, 4))
    if trained_px is not None:
        axes.axvspan(*trained_px, color="0.93")
    for name, points in curves.items():
        axes.plot(*np.array(points, float).reshape(-1, 2).T, "o-", label=name)
    ticks = [8, 16, 32, 64, 128, 256]
    axes.set(xlabel="diameter of red cells in the input, px", ylabel=quantity, ylim=(0, 1.02), xscale="log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.grid(alpha=0.3)
    _finish(file, axes)


def _finish(file: Path, *with_legend: Axes) -> None:
    for axes in with_legend:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower left", fontsize="small")
    pyplot.tight_layout()
    pyplot.savefig(file, dpi=110)
    pyplot.close()
