"""Site profiles: a classifier with the last layer of one laboratory, an ordinary model with a card that says so.

SITE/NAME.onnx and SITE/NAME.toml. The graph is that of the model it was made of but for the constants of its last
layer, so that every backend runs it and everything converts it as it does that one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.backends.choice import Backend, EngineMaker, Say
from engines.base import CardError, LeukostreamError, ModelNotFoundError, UsageError
from engines.geometry import Image
from engines.graphs.last_layer import FEATURES, Floats, last_layer, with_features, with_last_layer
from engines.models.adaptation import BLAST, Adaptation, AdaptationError, Adapted, Figures, HomeData
from engines.models.classifier import Classifier
from engines.models.last_layer_fit import Cells
from engines.zoo.card import Card, parse_card
from engines.zoo.figures import OF_BASE
from engines.zoo.home import HomeCells
from engines.zoo.registry import Model, card_document, find, home_cells, naming_model
from engines.zoo.toml import toml

BEFORE = "before adapting"
"""The view of figures of the model that a profile was made of, on the same cells as the profile's own."""
HOME = "home cells"
"""The data set of figures that say what became of the laboratories that the model knows."""


@dataclass(frozen=True, slots=True)
class LabelledCell:
    """A cell that a person has named."""

    class_index: int
    slide: str
    """Cells of one slide are never on both sides of a measurement."""


class SiteAdapter:
    """A classifier that is to be adapted: what it reads of cells, and the profile that comes of them."""

    def __init__(self, name_or_path: str, *, backend: Backend = "auto", say: Say = lambda line: None) -> None:
        """Errors as of `load_classifier`, and ModelFormatError for one that does not end in a linear layer."""
        self._name = name_or_path
        self.model: Model = find(name_or_path, "classifier")
        with naming_model(self.model.where):
            self.base = last_layer(self.model.proto)
            engine = EngineMaker(self.model.card, with_features(self.model.proto), backend=backend, say=say)(None, None)
        self.classifier = Classifier(self.model.card, engine)

    @property
    def card(self) -> Card:
        return self.model.card

    def features(self, crops: Image) -> Floats:
        """(n, F) of crops uint8 (n,k,h,w,3), k looks at each cell: the mean, of which the last layer makes what is
        pooled of the looks."""
        n, looks, *shape = crops.shape
        _, found = self.classifier.classify_batch_with(crops.reshape(n * looks, *shape), (FEATURES,))
        values = found[FEATURES].astype(np.float64)
        return np.asarray(values.reshape(n, looks, values.shape[1]).mean(1))

    def adaptation(self) -> Adaptation:
        """With the home cells beside the model's card, where there are any."""
        home = home_cells(self._name, self.card)
        return Adaptation(
            base=self.base,
            class_names=self.card.class_names,
            threshold=self.card.thresholds.operating,
            home=None if home is None else home_data(home, self.card.class_names, self.base.weights.shape[1]),
        )

    def write(self, folder: Path, found: Adapted, cells: Cells, *, made_utc: str, program: str, command: str) -> Path:
        """SITE/NAME.onnx and SITE/NAME.toml; the path of the card. AdaptationError for one that is refused, UsageError
        for a folder that holds another model."""
        if found.refusal is not None:
            raise AdaptationError(f"profile: got one that is refused ({found.refusal}), expected one that helps")
        site = site_name(folder)
        name = f"{self.card.name}-{site}"
        check_folder(folder, name)
        data = with_last_layer(self.model.proto, found.layer).SerializeToString()
        document = card_document(self._name)
        training = dict(document.get("training", {}))
        training["data"] = [*training.get("data", []), site]
        training["site"] = {
            "name": site,
            "base": self.card.name,
            "base_sha256": self.card.sha256,
            "made_utc": made_utc,
            "program": program,
            "command": command,
            "cells": len(cells),
            "cells_by_class": _counted(cells, self.card.class_names),
            "prior_strength": found.strength,
            "temperature": round(found.temperature, 4),
            "base_threshold": self.card.thresholds.operating,
            "blast_bias_raised": round(found.raised, 4),
            "home": "not measured: no home cells beside the base model" if found.home_after is None else HOME,
            "home_blasts_misnamed_before": _rounded(found.blasts_before),
            "home_blasts_misnamed": _rounded(found.blasts_after),
        }
        values = {
            **document,
            "name": name,
            "file": f"{name}.onnx",
            "sha256": hashlib.sha256(data).hexdigest(),
            "summary": f"{self.card.name} adapted to {len(cells)} cells of {site}",
            "thresholds": {**document.get("thresholds", {}), "operating": found.threshold},
            "build": None,
            "training": training,
            "figures": [
                *_figures(site, "validation", found.before, found.after, command),
                *_figures(HOME, "validation", found.home_before, found.home_after, command),
                *(_of_base(row) for row in document.get("figures", [])),
            ],
        }
        path = folder / f"{name}.toml"
        text = toml(values)
        parse_card(text, str(path), stem=name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.onnx").write_bytes(data)
            path.write_text(text, "utf-8")
        except OSError as error:
            raise LeukostreamError(
                f"-o {folder}: got '{error.strerror}', expected a folder that can be written; check the path"
            ) from error
        return path


def home_data(home: HomeCells, class_names: Sequence[str], width: int) -> HomeData:
    """Every other cell to be replayed, the rest to be measured. CardError for features of another width."""
    if home.features.shape[1] != width:
        raise CardError(f"home cells: got {home.features.shape[1]} features a cell, expected {width}; make them again")
    features = home.features.astype(np.float64)
    classes = np.array([class_names.index(c) if c in class_names else -1 for c in home.classes], np.intp)
    by_class = np.argsort(classes, kind="stable")
    of_classes = by_class[classes[by_class] >= 0]
    known = Cells(features, classes)
    blasts = features[np.array([c == BLAST for c in home.classes], bool)]
    return HomeData(replayed=known[of_classes[::2]], measured=known[of_classes[1::2]], blasts=blasts)


def site_name(folder: Path) -> str:
    """Of a profile: the folder's. UsageError for one without letters or digits."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", folder.absolute().name).strip("-")
    if not name:
        raise UsageError(f"-o {folder}: got no name in letters or digits, expected a folder named after the site")
    return name


def check_folder(folder: Path, name: str) -> None:
    """UsageError where a profile of that name can't go there."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder}: got a file, expected a folder; give another name")
    others = [one.name for one in folder.glob("*.toml") if one.stem != name] if folder.is_dir() else []
    if others:
        raise UsageError(
            f"-o {folder}: got a folder that holds {others[0]}, expected an empty one; give another folder"
        )


@dataclass(frozen=True, slots=True)
class SiteProfile:
    """A profile that was found in a folder."""

    model: str
    """Path of its ONNX file: what `--classifier` takes."""
    card: Card
    site: Mapping[str, Any]
    """[training.site] of the card."""

    def __str__(self) -> str:
        """For people."""
        own = [figures for on, figures in self.card.figures.items() if on.dataset == self.site.get("name")]
        shares = [f"{one['balanced_accuracy']:.3f}" for one in own if isinstance(one.get("balanced_accuracy"), float)]
        became = f", balanced accuracy on left-out cells {' -> '.join(shares)}" if len(shares) == 2 else ""
        return (
            f"site profile {self.site.get('name')}: {self.card.name}, made of {self.site.get('base')} with "
            f"{self.site.get('cells')} cells on {str(self.site.get('made_utc'))[:10]}{became}"
        )


def find_site(folder: str | Path) -> SiteProfile:
    """The profile in a folder; ModelNotFoundError where there is none or more than one, CardError for a bad card."""
    path = Path(folder)
    if not path.is_dir():
        raise ModelNotFoundError(f"--site {folder}: got no folder, expected one that leukostream adapt wrote")
    found = []
    for card_path in sorted(path.glob("*.toml")):
        try:
            card = parse_card(card_path.read_text("utf-8"), str(card_path), stem=card_path.stem)
        except (OSError, UnicodeDecodeError) as error:
            raise CardError(f"{card_path}: got no text that can be read ({error}), expected a model card") from error
        site = card.training.get("site")
        if isinstance(site, Mapping) and card.task == "classifier":
            found.append(SiteProfile(str(card_path.with_name(card.file)), card, site))
    if len(found) != 1:
        raise ModelNotFoundError(
            f"--site {folder}: got {len(found)} site profiles, expected one, as leukostream adapt writes it; "
            "give a folder of that command, or a model as --classifier FILE"
        )
    return found[0]


def _figures(
    dataset: str, part: str, before: Figures | None, after: Figures | None, command: str
) -> list[dict[str, Any]]:
    """Tables of both; only the profile's own says how often a class is given wrongly, which flags go by."""
    if before is None or after is None:
        return []
    rates = {f"{name.replace(' ', '_')}_false_rate": _rounded(rate) for name, rate in after.false_rate.items()}
    return [
        {"dataset": dataset, "view": BEFORE, "part": part, "command": command, **_flat(before)},
        {"dataset": dataset, "part": part, "command": command, **_flat(after), **rates},
    ]


def _flat(figures: Figures) -> dict[str, Any]:
    """As the tables of cards have them."""
    values: dict[str, Any] = {
        "cells": figures.cells,
        "accuracy": figures.accuracy,
        "balanced_accuracy": figures.balanced_accuracy,
        "classified": figures.classified,
        "accuracy_classified": figures.accuracy_classified,
        **{f"{name.replace(' ', '_')}_recall": share for name, share in figures.recall.items()},
    }
    return {key: _rounded(value) if isinstance(value, float) else value for key, value in values.items()}


def _of_base(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "view": f"{OF_BASE} {row.get('view', '')}".strip()}


def _counted(cells: Cells, class_names: Sequence[str]) -> list[str]:
    counts = Counter(class_names[c] for c in cells.classes.tolist())
    return [f"{name}: {count}" for name, count in counts.most_common()]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
