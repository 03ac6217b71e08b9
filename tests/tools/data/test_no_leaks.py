"""That no picture which trains a network shows what another picture measures it by.

The splits are made from perceptual hashes, local features and names; here the pictures are compared by another measure,
the correlation of small grey copies in all eight orientations, over all sets and every pair across the parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tools.cases import smear
from tools import data as datasets
from tools.data import sets

SIDE_PX = 24
SAME_PICTURE = 0.98
"""Measured on these sets: all re-exports of pbc in txl_pbc correlate by more than .999; the likeliest strangers (cells
of one size in the middle of pale squares) reach .977."""


def small(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)


def normalised(pictures: np.ndarray) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6))


def orientations(pictures: np.ndarray) -> Iterator[np.ndarray]:
    for turns in range(4):
        turned = np.rot90(pictures, turns, axes=(1, 2))
        yield turned
        yield turned[:, :, ::-1]


def look_alikes(held: np.ndarray, training: np.ndarray, least: float = SAME_PICTURE) -> set[tuple[int, int]]:
    """(number in held, number in training) of pictures (n, side, side) that correlate in some orientation."""
    reference = normalised(training)
    found: set[tuple[int, int]] = set()
    for variant in orientations(held):
        queries = normalised(np.ascontiguousarray(variant))
        for start in range(0, len(queries), 512):
            rows, columns = np.nonzero(queries[start : start + 512] @ reference.T >= least)
            found.update((int(r) + start, int(c)) for r, c in zip(rows, columns, strict=True))
    return found


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_reexport_is_seen_and_strangers_are_not(turns: int, mirrored: bool) -> None:
    greys = [cv2.cvtColor(smear(seed), cv2.COLOR_BGR2GRAY) for seed in range(12)]
    turned = np.rot90(greys[7], turns)[:, :: -1 if mirrored else 1]
    reduced = cv2.resize(np.ascontiguousarray(turned), (90, 90), interpolation=cv2.INTER_AREA)
    coded = cv2.imdecode(cv2.imencode(".jpg", cv2.convertScaleAbs(reduced, alpha=0.7))[1], cv2.IMREAD_GRAYSCALE)
    held = np.stack([small(coded), small(cv2.cvtColor(smear(50), cv2.COLOR_BGR2GRAY))])
    assert look_alikes(held, np.stack([small(grey) for grey in greys])) == {(0, 7)}


@pytest.fixture(scope="module")
def root() -> Path:
    try:
        return datasets.data_root()
    except datasets.DataSetMissing as error:
        pytest.skip(str(error))


@pytest.mark.data
@pytest.mark.slow
def test_no_training_picture_of_any_set_looks_like_one_that_is_held_back(root: Path) -> None:
    parts = datasets.load_splits(root)
    keys = sorted(parts)
    grey = [cv2.imread(str(root / key), cv2.IMREAD_REDUCED_GRAYSCALE_2) for key in keys]
    pictures = np.stack([small(picture) for picture in grey])
    trains = np.array([parts[key] == datasets.TRAIN for key in keys])
    assert 0.6 < trains.mean() < 0.9
    found = look_alikes(pictures[~trains], pictures[trains])
    held, training = np.flatnonzero(~trains), np.flatnonzero(trains)
    assert [(keys[held[a]], keys[training[b]]) for a, b in sorted(found)] == []


@pytest.mark.data
@pytest.mark.slow
def test_what_trains_the_detector_is_of_the_training_part_alone(root: Path) -> None:
    parts = datasets.load_splits(root)
    names = ("txl_pbc", "bccd", "bcd", "chula_wbc", "pbc")
    training = {item.name for members in sets.training_fields(names, 10**6, 1, None).values() for item in members}
    assert training <= {key for key, part in parts.items() if part == datasets.TRAIN}
    measured = {item.name for name in names for part in datasets.PARTS[1:] for item in sets.fields_of(name, part)}
    assert not training & measured
    slides = {Path(key).name.rpartition("_")[0] for key in training if key.startswith("chula_wbc/")}
    held = {Path(key).name.rpartition("_")[0] for key in measured if key.startswith("chula_wbc/")}
    assert len(held) == 12
    assert not slides & held
