"""What a classifier's card says of its figures: a table for every set and part, for attributes and for junk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.data import VALIDATION
from tools.data.crops import table_name
from tools.evaluate import eight_types as evaluate_classifier
from tools.evaluate.eight_types import Model

LEFT_OUT = "left_out"
"""In the name of a table: measured with earlier weights, which the set had not trained."""


def figure_tables(model: Model, name: str, parts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The card's tables: one for every set and part."""
    tables: dict[str, dict[str, Any]] = {}
    for part in parts:
        command = f"python -m tools.evaluate {name} --part {part}"
        for title, found in evaluate_classifier.evaluate(model, part).items():
            f = evaluate_classifier.figures(found, model.threshold, model.temperature, model.novelty)
            tables[table_name(title, part)] = set_table(f, command)
            if f["attributes"]:
                tables[table_name(f"{title} attributes", part)] = attribute_table(f["attributes"], command)
        if model.novelty is not None:
            tables[f"junk_{part}"] = junk_table(evaluate_classifier.junk(model, part), command)
    return tables


def left_out_table(model: Model, left_out: str) -> dict[str, dict[str, Any]]:
    """The table of a set that trained the model's successor but not `model`: all of its cells."""
    found = evaluate_classifier.evaluate(model, VALIDATION, sets=[left_out], left_out=[left_out])[left_out]
    f = evaluate_classifier.figures(found, model.threshold, model.temperature, model.novelty)
    command = f"python -m tools.evaluate {Path(model.source).name} --left-out {left_out}"
    title = table_name(f"{left_out} {LEFT_OUT}", VALIDATION)
    weights = f"those before the set trained, {model.classifier.card.sha256}"
    return {title: {**set_table(f, command), "weights": weights}}


def set_table(f: Mapping[str, Any], command: str) -> dict[str, Any]:
    """What the card says of one set; f: `evaluate_classifier.figures`."""
    table: dict[str, Any] = {
        "command": command,
        "cells": f["cells"],
        **{f"accuracy{s}": f["accuracy"][k] for s, k in (("", "value"), ("_low", "low"), ("_high", "high"))},
        "balanced_accuracy": f["balanced_accuracy"],
        "subclass_accuracy": f["subclass_accuracy"]["value"],
        "calibration_error": f["calibration_error"],
        "calibration_error_untempered": f["calibration_error_untempered"],
        "classified": f["classified"]["value"],
        "accuracy_classified": f["accuracy_classified"]["value"],
        "accuracy_without_tenth": f["without_tenth"]["accuracy"],
        "balanced_accuracy_without_tenth": f["without_tenth"]["balanced_accuracy"],
        "unlike_training": f["unlike_training"]["value"] if f["unlike_training"] else None,
    }
    for label, row in f["classes"].items():
        key = label.replace(" ", "_")
        table[f"{key}_recall"] = row["recall"]["value"]
        table[f"{key}_precision"] = row["precision"]["value"]
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
