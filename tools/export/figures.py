"""What cards say of figures: of what a measuring command wrote or gave, a table for every set and part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.zoo.figures import MeasuredOn
from tools.data import VALIDATION
from tools.data.crops import measured_on
from tools.evaluate import eight_types as evaluate_classifier
from tools.evaluate.eight_types import Model
from tools.metrics.classification import card_entry

OF_CLASS = (
    "positives",
    "recall",
    "recall_low",
    "recall_high",
    "precision",
    "ap50",
    "ap50_low",
    "ap50_high",
    "ap50_95",
    "best_f1",
    "best_f1_threshold",
)
"""What the card says of a class of a detector, in this order."""

LEFT_OUT = "left out"
"""A view of a set: measured with earlier weights, which the set had not trained."""


def figure_tables(model: Model, name: str, parts: Sequence[str]) -> dict[MeasuredOn, dict[str, Any]]:
    """The card's tables: one for every set and part."""
    tables: dict[MeasuredOn, dict[str, Any]] = {}
    for part in parts:
        command = f"python -m tools.evaluate {name} --part {part}"
        for title, found in evaluate_classifier.evaluate(model, part).items():
            f = evaluate_classifier.figures(found, model.threshold, model.temperature, model.novelty)
            tables[measured_on(title, part)] = set_table(f, command)
            if f["attributes"]:
                tables[measured_on(f"{title} attributes", part)] = attribute_table(f["attributes"], command)
        if model.novelty is not None:
            tables[measured_on("junk", part)] = junk_table(evaluate_classifier.junk(model, part), command)
    return tables


def left_out_table(model: Model, left_out: str) -> dict[MeasuredOn, dict[str, Any]]:
    """The table of a set that trained the model's successor but not `model`: all of its cells."""
    found = evaluate_classifier.evaluate(model, VALIDATION, sets=[left_out], left_out=[left_out])[left_out]
    f = evaluate_classifier.figures(found, model.threshold, model.temperature, model.novelty)
    command = f"python -m tools.evaluate {Path(model.source).name} --left-out {left_out}"
    title = measured_on(f"{left_out} {LEFT_OUT}", VALIDATION)
    weights = f"those before the set trained, {model.classifier.card.sha256}"
    return {title: {**set_table(f, command), "weights": weights}}


def set_table(f: Mapping[str, Any], command: str) -> dict[str, Any]:
    """What the card says of one set; f: `evaluate_classifier.figures`."""
    table = {
        "command": command,
        **card_entry(f, class_limits=False),
        "subclass_accuracy": f["subclass_accuracy"]["value"],
        "accuracy_without_tenth": f["without_tenth"]["accuracy"],
        "balanced_accuracy_without_tenth": f["without_tenth"]["balanced_accuracy"],
        "unlike_training": f["unlike_training"]["value"] if f["unlike_training"] else None,
    }
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in table.items()}


def junk_table(rows: Mapping[str, Mapping[str, Any]], command: str) -> dict[str, Any]:
    """Of each kind of junk, and the mean of the kinds; platelets are a class of their own and not in the mean."""
    unlike = [row["unlike_training"] for kind, row in rows.items() if kind != "platelet"]
    table: dict[str, Any] = {
        "command": command,
        "crops": sum(row["crops"] for row in rows.values()),
        "mean_unlike_training": round(float(np.mean(unlike)), 4),
    }
    for kind, row in rows.items():
        for key, value in row.items():
            table[f"{kind.replace(' ', '_')}_{key}"] = round(value, 4) if isinstance(value, float) else value
    return table


def attribute_table(rows: Mapping[str, Mapping[str, Any]], command: str) -> dict[str, Any]:
    """Of a set: macro-F1 and accuracy of every attribute, and their means."""
    table: dict[str, Any] = {"command": command, "cells": max(row["cells"] for row in rows.values())}
    for key in ("macro_f1", "accuracy"):
        table[f"mean_{key}"] = round(float(np.mean([row[key] for row in rows.values()])), 4)
        table |= {f"{name}_{key}": round(row[key], 4) for name, row in rows.items()}
    return table


def figures_tables(figures: Mapping[str, Any], long_side_px: int) -> dict[MeasuredOn, dict[str, Any]]:
    """What a measuring command wrote as tables of the card, by its `measure`: tools.evaluate (none given),
    tools.evaluate found-cells, tools.evaluate magnification, or a "table" that a person wrote."""
    if figures.get("measure") == "table":
        return {MeasuredOn(figures["dataset"], figures.get("view", ""), figures["part"]): dict(figures["table"])}
    if figures.get("measure") == "found cells":
        return {MeasuredOn("chula_wbc", "found cells", figures["part"]): found_cells_table(figures)}
    if figures.get("measure") == "magnification":
        return magnification_tables(figures)
    return detection_tables(figures, long_side_px)


def found_cells_table(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Cells of unseen camera slides found at least once, and boxes found, each with its limits."""
    entry: dict[str, Any] = {"command": figures["command"], "slides": list(figures["slides"])}
    for name in ("cells_found_at_least_once", "boxes_found"):
        share = figures[name]
        entry |= {name: share["hits"], f"{name}_of": share["trials"], f"{name}_recall": round(share["value"], 4)}
        entry |= {f"{name}_low": round(share["low"], 4), f"{name}_high": round(share["high"], 4)}
    return entry


def magnification_tables(figures: Mapping[str, Any]) -> dict[MeasuredOn, dict[str, Any]]:
    """Recall by the diameter of red cells in the input, one table a set."""
    tables: dict[MeasuredOn, dict[str, Any]] = {}
    for result in figures["results"]:
        measured = MeasuredOn(result["set"], "magnification", result["part"])
        entry = tables.setdefault(measured, {"command": figures["command"], "rbc_diameter_px": []})
        entry["rbc_diameter_px"].append(result["rbc_diameter_px"])
        for name, values in result["classes"].items():
            for key in ("recall", "ap50"):
                if values.get(key) is not None:
                    entry.setdefault(f"{name.lower()}_{key}", []).append(values[key])
    return tables


def detection_tables(figures: Mapping[str, Any], long_side_px: int) -> dict[MeasuredOn, dict[str, Any]]:
    """One table a set and part; those at another input size than the card's `long_side_px` are named by it."""
    tables: dict[MeasuredOn, dict[str, Any]] = {}
    for result in figures["results"]:
        entry: dict[str, Any] = {
            "command": figures["command"],
            "pictures": result["pictures"],
            "long_side_px": result["long_side_px"],
            "threshold": result["threshold"],
            "map50": result["map50"],
            "map50_low": result.get("map50_low"),
            "map50_high": result.get("map50_high"),
            "map50_95": result["map50_95"],
            "network_ms_p10": result["network_ms"],
        }
        for name, values in result["classes"].items():
            for key in OF_CLASS:
                entry[f"{name.lower()}_{key}"] = values.get(key)
            entry[f"{name.lower()}_unlabelled_detections"] = values["unlabelled_detections"]
        side = result["long_side_px"]
        size = "" if side == long_side_px else f"{side}px" if isinstance(side, int) else side
        labelled = "as labelled" if result.get("as_labelled") else ""
        tables[MeasuredOn(result["set"], f"{labelled} {size}".strip(), result["part"])] = entry
    return tables


def card_table(row: Mapping[str, Any], command: str) -> dict[str, Any]:
    """A card's table of figures: recalls as numbers of their own, what was not measured left out."""
    plain = {
        key: round(v, 4) if isinstance(v, float) else v for key, v in row.items() if key not in ("recall", "by_patient")
    }
    recalls = {f"{label.replace(' ', '_')}_recall": share for label, (share, _) in row.get("recall", {}).items()}
    return {"command": command, **{key: v for key, v in plain.items() if v is not None}, **recalls}
