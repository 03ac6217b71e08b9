"""Which pictures show the same thing, and the split that never parts them.

Three things tie pictures together: a perceptual hash over all sets (re-exports at another size, JPEG quality,
colour, mirrored or turned by 90°), registration by local features within a family of fields (re-exports
turned by other angles, sheared or cropped; neighbouring fields that overlap), and names (a BCCD crop and its
field, a slide of chula_wbc). Union-find over all three gives the groups; a group goes to one part as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np

from tools.data import readers
from tools.data.readers import FURTHER_CELL_SETS, CellPicture, Field

TRAIN, VALIDATION, HOLDOUT = "train", "validation", "holdout"
PARTS = (TRAIN, VALIDATION, HOLDOUT)

HASH_BITS = 255
MAX_HASH_DISTANCE_BITS = 56
"""Measured on these sets: re-exports differ by 0–50 of 255 bits, the nearest strangers by 57 and more."""
MIN_MATCHES = 12
SCALE_RANGE = (0.6, 1.7)
"""Registered pairs with at least 12 inliers have singular values in this range; false ones have fewer than
12."""

SLIDE_PARTS = {
    **dict.fromkeys(("E-14", "L-10", "M-4B", "L-4B", "E-4B", "B-53"), VALIDATION),
    **dict.fromkeys(("E-8", "L-5B", "L-5Bb", "M-5B", "N-1B", "B-57"), HOLDOUT),
}
"""Slides of chula_wbc kept from training, chosen so that all five types occur in both parts; all others
train."""
PATIENT_PARTS = {
    **{f"deepapl Patient_{n}": VALIDATION for n in ("16", "58", "04", "27", "45", "54", "100", "09", "93")},
    **{f"deepapl Patient_{n}": HOLDOUT for n in ("39", "12", "98", "42", "90")},
}
"""Patients of deepapl kept from training: in both parts some with promyelocytes by the dozen (16, 58; 39), with blasts
(04, 27, 45, 54, 100; 12, 98) and with few of either (09, 93; 42, 90). By the table of the set's repository, which the
data folder lacks, 93, 100 and 39 have acute promyelocytic leukaemia, the others another acute myeloid one. The folder
`cc` is a patient of its own: none of its pictures resembles one of another folder, and its cell numbers lie apart from
all others, as every patient's do."""

_FEATURES = 160
_CACHE_VERSION = 2
_Links = list[tuple[str, str]]


ItemT = TypeVar("ItemT", int, str)


class UnionFind(Generic[ItemT]):
    """Disjoint sets of strings or numbers; `root` of a set is its smallest member, so it doesn't depend on the order of
    unions."""

    def __init__(self, items: Iterable[ItemT] = ()) -> None:
        self._parent: dict[ItemT, ItemT] = {item: item for item in items}

    def root(self, item: ItemT) -> ItemT:
        parent = self._parent.setdefault(item, item)
        while parent != self._parent[parent]:
            self._parent[item] = self._parent[parent]
            item, parent = parent, self._parent[parent]
        return parent

    def union(self, a: ItemT, b: ItemT) -> None:
        low, high = sorted((self.root(a), self.root(b)))
        self._parent[high] = low

    def groups(self) -> dict[ItemT, list[ItemT]]:
        """Root -> its members, sorted."""
        members: dict[ItemT, list[ItemT]] = defaultdict(list)
        for item in sorted(self._parent):
            members[self.root(item)].append(item)
        return dict(members)


def hash_signs(grey: np.ndarray) -> np.ndarray:
    """int8 (16, 16) of ±1 from a grey picture uint8 (h, w): signs of the 16x16 lowest DCT coefficients of the
    picture squeezed to 64x64; the mean's place [0, 0] holds 0. A mirrored picture flips the signs of the odd
    columns or rows, a transposed one transposes them, so that all eight orientations follow from one hash."""
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    signs = np.where(cv2.dct(small)[:16, :16] >= 0, 1, -1).astype(np.int8)
    signs[0, 0] = 0
    return signs


def orientations(signs: np.ndarray) -> Iterator[np.ndarray]:
    """The hashes int8 (n, 16, 16) of the same n pictures in their eight orientations."""
    odd = (1 - 2 * (np.arange(16) % 2)).astype(np.int8)
    for turned in (signs, signs.transpose(0, 2, 1)):
        for mirrored in (turned, turned * odd[None, None, :]):
            yield mirrored
            yield mirrored * odd[None, :, None]


def hash_links(
    keys: Sequence[str], signs: np.ndarray, max_distance_bits: int = MAX_HASH_DISTANCE_BITS
) -> list[tuple[str, str]]:
    """Pairs of keys whose hashes int8 (n, 16, 16) differ by at most `max_distance_bits` in any
    orientation."""
    flat = signs.reshape(len(keys), 256).astype(np.float32)
    found: set[tuple[int, int]] = set()
    for variant in orientations(signs):
        queries = variant.reshape(len(keys), 256).astype(np.float32)
        for start in range(0, len(keys), 1024):
            distance = (HASH_BITS - queries[start : start + 1024] @ flat.T) / 2
            rows, columns = np.nonzero(distance <= max_distance_bits)
            found.update((int(r) + start, int(c)) for r, c in zip(rows, columns, strict=True) if r + start < c)
    return [(keys[a], keys[b]) for a, b in sorted(found)]


class _Features:
    """RootSIFT of a field squeezed to a fixed size (BCCD was re-exported with its 4:3 squeezed to a
    square)."""

    def __init__(self, grey: np.ndarray, size_px: tuple[int, int]) -> None:
        grey = cv2.resize(grey, size_px, interpolation=cv2.INTER_AREA)
        points, described = cv2.SIFT.create(_FEATURES).detectAndCompute(grey, None)
        self.points = np.array([p.pt for p in points[:_FEATURES]], np.float32).reshape(-1, 2)
        self.described = np.zeros((_FEATURES, 128), np.float32)
        if described is not None:
            described = described[:_FEATURES]
            self.described[: len(described)] = np.sqrt(described / (described.sum(1, keepdims=True) + 1e-6))


def overlap_links(greys: dict[str, np.ndarray], size_px: tuple[int, int]) -> list[tuple[str, str]]:
    """Pairs of pictures (grey uint8 (h, w) by key) that an affine map of at least 12 matching features lays
    over one another, mirrored ones included."""
    keys = sorted(greys)
    plain = {k: _Features(greys[k], size_px) for k in keys}
    mirrored = {k: _Features(greys[k][:, ::-1].copy(), size_px) for k in keys}
    described = np.concatenate([plain[k].described for k in keys])
    links: list[tuple[str, str]] = []
    for i, key in enumerate(keys[:-1]):
        rest = described[(i + 1) * _FEATURES :]
        for query in (plain[key], mirrored[key]):
            n = len(query.points)
            if n < MIN_MATCHES:
                continue
            similarity = (query.described[:n] @ rest.T).reshape(n, -1, _FEATURES)
            second, first = np.moveaxis(np.partition(similarity, -2, axis=2)[:, :, -2:], 2, 0)
            good = (1 - first) < 0.7 * (1 - second)  # Lowe's ratio, on squared distances
            for j in np.nonzero(good.sum(0) >= MIN_MATCHES)[0]:
                other = keys[i + 1 + int(j)]
                chosen = similarity[:, j].argmax(1)[good[:, j]]
                if _registers(query.points[good[:, j]], plain[other].points[chosen]):
                    links.append((key, other))
    return sorted(set(links))


def _registers(here: np.ndarray, there: np.ndarray) -> bool:
    affine, inliers = cv2.estimateAffine2D(here, there, ransacReprojThreshold=4.0)
    if affine is None or int(inliers.sum()) < MIN_MATCHES:
        return False
    high, low = np.linalg.svd(affine[:, :2])[1]
    return bool(SCALE_RANGE[0] < low and high < SCALE_RANGE[1])


_Picture = Field | CellPicture


def _families(fields: Sequence[_Picture]) -> list[tuple[list[_Picture], tuple[int, int]]]:
    """Fields that can show one another's cells: BCCD and its re-exports, the other laboratory of txl_pbc,
    bcd, chula, krd."""
    txl = [f for f in fields if f.dataset == "txl_pbc"]
    return [
        (
            [f for f in fields if f.dataset == "bccd"] + [f for f in txl if f.width_px in (416, 640)],
            (360, 270),
        ),
        ([f for f in txl if f.width_px == 575], (360, 360)),
        ([f for f in fields if f.dataset == "bcd"], (360, 360)),
        ([f for f in fields if f.dataset == "chula_wbc"], (360, 225)),
        ([f for f in fields if f.dataset == "krd"], (360, 360)),
    ]


def read_grey(path: Path) -> np.ndarray:
    """uint8 (h, w). ValueError for a file that is no picture."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError(f"picture {path}: got a file that can't be decoded, expected an image")
    return np.asarray(grey)


def _all_pictures(root: Path) -> list[str]:
    names = [p for p in root.rglob("*") if p.suffix in (".jpg", ".png") and not p.stem.endswith(("_mask", ".mask"))]
    return sorted(p.relative_to(root).as_posix() for p in names)


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "leukostream"


def find_links(root: Path, fields: Sequence[_Picture]) -> _Links:
    """All links by picture content, about three minutes the first time, then from the user's cache."""
    keys = _all_pictures(root)
    names = "\n".join(f"{k} {(root / k).stat().st_size}" for k in keys)
    settings = f"{_CACHE_VERSION} {MAX_HASH_DISTANCE_BITS} {MIN_MATCHES} {SCALE_RANGE} {_FEATURES}"
    digest = hashlib.sha256(f"{settings}\n{names}".encode()).hexdigest()[:16]

    def search() -> _Links:
        links = hash_links(keys, np.stack([hash_signs(read_grey(root / k)) for k in keys]))
        for family, size_px in _families(fields):
            if len(family) > 1:
                links.extend(overlap_links({f.key: read_grey(f.path) for f in family}, size_px))
        return sorted(set(links))

    return [(a, b) for a, b in cached(f"links-{digest}.json", search)]


def cached(name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON in the user's cache folder; made once."""
    cache = _cache_dir() / name
    if cache.exists():
        return json.loads(cache.read_text())
    made = make()
    cache.parent.mkdir(parents=True, exist_ok=True)
    part = cache.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(made))
    part.replace(cache)
    return made


def build_groups(root: Path | None = None) -> dict[str, list[str]]:
    """Group (its smallest key) -> keys of all pictures of all sets that belong together."""
    root = readers.data_root() if root is None else root
    fields = readers.read_fields(root)
    pictures: list[_Picture] = [*fields, *_further_cells(root)]
    union = UnionFind(_all_pictures(root))
    for a, b in find_links(root, pictures):
        union.union(a, b)
    first_of_slide: dict[str, str] = {}
    for picture in pictures:
        if picture.slide is not None:
            union.union(picture.key, first_of_slide.setdefault(picture.slide, picture.key))
    known = {f.key for f in fields}
    for key in _all_pictures(root):
        if key.startswith("bccd_crops/") and (origin := readers.bccd_field_key(key)) in known:
            union.union(key, origin)
    return union.groups()


def _further_cells(root: Path) -> list[CellPicture]:
    """The cells of the further sets that are there."""
    return readers.read_cells(root, [name for name in FURTHER_CELL_SETS if (root / name).is_dir()])


def bucket(group: str) -> float:
    """A number in [0, 1) that only depends on the group's name."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64


def part_of(group: str, slides: set[str], official: set[str]) -> str:
    """The part of a group, from the slides in it and the official parts ("train", "val") of its pictures.

    A slide decides first (`SLIDE_PARTS`); then an official validation picture takes its group along; of the
    rest a tenth is held out, and where no official split says otherwise another tenth is for validation.
    """
    if slides:
        named = {(SLIDE_PARTS | PATIENT_PARTS).get(s, TRAIN) for s in slides}
        return next(p for p in (TRAIN, VALIDATION, HOLDOUT) if p in named)
    if "val" in official:
        return VALIDATION
    place = bucket(group)
    if place < 0.1:
        return HOLDOUT
    return VALIDATION if place < 0.2 and "train" not in official else TRAIN


def load_splits(root: Path | None = None) -> dict[str, str]:
    """Key of every picture -> "train", "validation" (chooses models) or "holdout" (measured once)."""
    root = readers.data_root() if root is None else root
    slides: dict[str, str] = {}
    official: dict[str, str] = {}
    pictures: list[_Picture] = [*readers.read_fields(root), *readers.read_cells(root), *_further_cells(root)]
    for picture in pictures:
        if picture.slide is not None:
            slides[picture.key] = picture.slide
        if picture.official_part is not None:
            official[picture.key] = picture.official_part
    parts: dict[str, str] = {}
    for group, keys in build_groups(root).items():
        part = part_of(group, {slides[k] for k in keys if k in slides}, {official[k] for k in keys if k in official})
        parts.update(dict.fromkeys(keys, part))
    return parts
