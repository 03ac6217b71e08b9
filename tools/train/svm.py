"""Fit support vector machines to the features of a trained DarkNet-53, by the protocol of the leukaemia system of 2022.

    python -m tools.train published --architecture darknet53 --out runs/darknet53
    python -m tools.train svm --network runs/darknet53 --out runs/darknet53-svm
    python -m tools.train svm --network runs/darknet53 --out runs/darknet53-svm-blast --classes blast

Features are what the exported graph gives, so that a machine is fitted to exactly what it will see. The best 500 by
Bhattacharyya distance are kept; machines with a quadratic, a cubic and an optimised kernel are fitted for each pair of
classes. The five types use the cells and the split of the network's run; `--classes blast` uses ALL-IDB2 with the same
network: cross-validation over groups says how good the method is (every cell named once, by machines that saw nothing
of its group), then machines of the training part are kept. With --margins A B each cell is looked at twice, the second
look mirrored: machines are fitted to both and what they say of the two is pooled log-linearly, as the stream does. OUT
has features.onnx, KERNEL.npz and results.json; a run that was stopped goes on with --resume.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from engines.geometry import crop_squares
from engines.graphs.graph import add_uint8_input
from engines.graphs.storage import narrowed
from engines.models.loading import load_detector
from tools.architectures.darknet53 import TypedDarkNet53
from tools.architectures.published import CLASSES
from tools.architectures.support_vectors import KEPT, Kernel, PairMachines, grouped_folds, optimised_kernel, usual_scale
from tools.commands import command_parser
from tools.data import HOLDOUT, TRAIN, VALIDATION, data_root
from tools.data.blasts import BLAST_CLASSES, FINDER, FINDER_PX, blast_groups, blast_parts, read_blasts
from tools.data.crops import add_margins, mirrored_looks, read_image
from tools.data.protocols import TEST
from tools.graphs.conversion import to_onnx
from tools.graphs.support_vectors import FEATURES, add_support_vectors, bare_features
from tools.metrics import classification as measures
from tools.train import loop
from tools.train.options import plain_settings, set_threads
from tools.train.published import cells_of_run

STRICT = 0.9
"""The threshold where none has few enough errors."""
KERNELS = ("quadratic", "cubic", "optimised")


@dataclass(frozen=True)
class Sample:
    """Cells to fit machines to: `crops` gives uint8 (n, px, px, 3) BGR of rows by a margin; labels into `names`;
    `margins` are those of the looks at each cell."""

    names: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray
    parts: np.ndarray
    tested: str
    """The part that is measured."""
    keys: Sequence[str]
    crops: Callable[[np.ndarray, float], np.ndarray]
    margins: Sequence[float]

    def looks(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (n, k, px, px, 3) BGR, the second of two looks mirrored."""
        return mirrored_looks([self.crops(rows, margin) for margin in self.margins])


def five_types(run: dict[str, Any], stored: Path, margins: Sequence[float] | None = None) -> Sample:
    """The cells of a network's run, in its parts; looked at by the run's margin where no `margins` are given."""
    cells, of_cells = cells_of_run(run, stored)
    tested = TEST if run["settings"]["split"] == "published" else VALIDATION
    used = np.flatnonzero(np.array(of_cells) != HOLDOUT)
    labels = np.array([CLASSES.index(name) for name in cells.classes])[used]
    groups, parts = np.array(cells.groups())[used], np.array(of_cells)[used]
    px = run["protocol"]["input_px"]
    keys = [cells.keys[i] for i in used]

    def crops(rows: np.ndarray, margin: float) -> np.ndarray:
        return cells.pictures(used[rows], px, margin)

    return Sample(CLASSES, labels, groups, parts, tested, keys, crops, margins or [run["settings"]["margin"]])


def blasts(run: dict[str, Any], margins: Sequence[float] | None = None) -> Sample:
    """The cells of ALL-IDB2, cut as the stream would."""
    root = data_root()
    cells = read_blasts(root, load_detector(FINDER, long_side_px=FINDER_PX))
    labels = np.array([BLAST_CLASSES.index(cell.cell_class) for cell in cells])
    px = run["protocol"]["input_px"]

    def crops(rows: np.ndarray, margin: float) -> np.ndarray:
        boxes = [np.array([cells[i].box_px], np.float32) for i in rows]
        found = [
            crop_squares(read_image(cells[i].path), box, (px, px), margin)[0]
            for i, box in zip(rows, boxes, strict=True)
        ]
        return np.stack(found)

    groups, parts = np.array(blast_groups(cells, root)), np.array(blast_parts(cells, root))
    keys = [cell.key for cell in cells]
    return Sample(
        BLAST_CLASSES, labels, groups, parts, VALIDATION, keys, crops, margins or [run["settings"]["margin"] or 1.3]
    )


def feature_graph(run: Path, input_px: int) -> onnx.ModelProto:
    """uint8 (N, px, px, 3) BGR `images` to `features` (N, 1000) of the best network of a run, in half precision."""
    network = TypedDarkNet53(len(CLASSES))
    state = loop.load_checkpoint(run / "repetition-0" / "network" / "best.pt")
    network.load_state_dict(state["network"])
    graph = to_onnx(network.features, torch.rand(2, 3, input_px, input_px), (FEATURES,), {0: "N"})
    return narrowed(add_uint8_input(graph, scale=1 / 255, channels="bgr"))


def session_of(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def features_of(graph: onnx.ModelProto, sample: Sample, kept: Path, threads: int) -> np.ndarray:
    """float32 (n, k, d) of k looks at all cells; taken from the file `kept` where the same graph wrote it for the same
    looks."""
    told = "\n".join([*sample.keys, *map(str, sample.margins)])
    digest = hashlib.sha256(graph.SerializeToString() + told.encode()).hexdigest()
    if kept.exists():
        with np.load(kept) as file:
            if str(file["digest"]) == digest:
                return np.asarray(file["features"])
    session = session_of(graph, threads)
    rows = np.arange(len(sample.labels))
    found = []
    for start in loop.progress(range(0, len(rows), 32), -(-len(rows) // 32), "features"):
        looks = sample.looks(rows[start : start + 32])
        of_each = session.run([FEATURES], {"images": looks.reshape(-1, *looks.shape[2:])})[0]
        found.append(of_each.reshape(*looks.shape[:2], -1))
    features = np.concatenate(found)
    np.savez(kept, features=features, digest=digest)
    return features


class Fitting:
    """The machines of one sample, kernel by kernel; features float32 (n, k, d) of k looks at each cell."""

    def __init__(self, sample: Sample, features: np.ndarray, options: argparse.Namespace) -> None:
        self.sample, self.features, self.options = sample, features, options
        self.common = {"kept": options.kept, "folds": options.folds, "seed": options.seed}

    def kernel(self, name: str, rows: np.ndarray) -> tuple[Kernel, float | None]:
        """The kernel of a name for training rows, and the cross-validated accuracy where it was searched."""
        scale = usual_scale(min(self.options.kept, self.features.shape[2]))
        if name == "optimised":
            return optimised_kernel(*self._examples(rows), limit=self.options.search_cells, **self.common)
        return Kernel("polynomial", 2 if name == "quadratic" else 3, scale), None

    def machines(self, rows: np.ndarray, kernel: Kernel) -> PairMachines:
        return PairMachines(*self._examples(rows), kernel, **self.common)

    def _examples(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, labels and groups of every look at the cells numbered `rows`."""
        looks = self.features.shape[1]
        features = self.features[rows].reshape(-1, self.features.shape[2])
        return features, np.repeat(self.sample.labels[rows], looks), np.repeat(self.sample.groups[rows], looks)

    def cross_validated(self, name: str) -> dict[str, Any]:
        """Figures over all cells, each named by machines that saw nothing of its group, nor did ranking or search."""
        sample = self.sample
        found = np.zeros((len(sample.labels), len(sample.names)))
        for train, held in grouped_folds(sample.labels, sample.groups, self.options.folds, self.options.seed):
            found[held] = self._pooled(self.machines(train, self.kernel(name, train)[0]), held)
        return self._measured(found, np.arange(len(sample.labels)))

    def fit(self, name: str, out: Path) -> dict[str, Any]:
        """Fit on the training part, write OUT/NAME.npz; what results.json says of it."""
        sample = self.sample
        train, tested = (np.flatnonzero(sample.parts == part) for part in (TRAIN, sample.tested))
        kernel, searched = self.kernel(name, train)
        machines = self.machines(train, kernel)
        difference = float(np.abs(self._by_graph(machines, 1.0, tested) - self._pooled(machines, tested)).max())
        held = np.flatnonzero(sample.parts == VALIDATION)
        temperature = 1.0
        if len(sample.names) > 2 and len(held):
            logs = np.log(np.maximum(self._pooled(machines, held), 1e-12))
            temperature = measures.fit_temperature(logs, sample.labels[held])
        constants = machines.constants(temperature)
        constants.save(out / f"{name}.npz")
        votes = machines.votes(self.features[tested, 0])
        return {
            **asdict(kernel),
            "searched_accuracy": searched,
            "support_vectors": len(constants.vectors),
            "temperature": temperature,
            "graph_differs_by": difference,
            "measured_on": sample.tested,
            "accuracy_by_votes_of_first_look": float((votes == sample.labels[tested]).mean()),
            **self._measured(self._by_graph(machines, temperature, tested), tested),
        }

    def _pooled(self, machines: PairMachines, rows: np.ndarray) -> np.ndarray:
        """float64 (n, k): scikit-learn's probabilities of the looks at each cell, pooled."""
        looks = self.features.shape[1]
        return pooled(machines.probabilities(self._examples(rows)[0]), looks)

    def _measured(self, probabilities: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        """The lowest threshold with at most `options.risk` of errors among the cells numbered `rows`, the confusion
        table, and a card's figures, for which each cell is judged by the threshold that cells of other groups choose.
        """
        truth, groups = self.sample.labels[rows], self.sample.groups[rows].tolist()
        reached = measures.threshold_for_risk(probabilities, truth, self.options.risk)
        threshold = round(reached[0], 2) if reached else STRICT
        own = measures.thresholds_of_others(probabilities, truth, groups, self.options.risk, STRICT, self.options.seed)
        found = measures.figures(probabilities, truth, self.sample.names, own, clusters=groups)
        entry = measures.card_entry(found, class_limits=True)
        return {**entry, "threshold": threshold, "confusion": found["confusion"]}

    def _by_graph(self, machines: PairMachines, temperature: float, rows: np.ndarray) -> np.ndarray:
        graph = add_support_vectors(bare_features(self.features.shape[2]), machines.constants(temperature))
        found = session_of(graph, self.options.threads).run(None, {FEATURES: self._examples(rows)[0]})
        return pooled(np.asarray(found[0]), self.features.shape[1])


def pooled(probabilities: np.ndarray, looks: int) -> np.ndarray:
    """(n, k) of (n * looks, k), the looks at a cell side by side: their geometric mean, made to sum to 1."""
    odds = np.exp(np.log(np.maximum(probabilities, 1e-12)).reshape(-1, looks, probabilities.shape[1]).mean(1))
    return np.asarray(odds / odds.sum(1, keepdims=True))


def fit_all(sample: Sample, features: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Every kernel of `options.kernels`; those that a stopped run has done of the same features are read."""
    fitting = Fitting(sample, features, options)
    plan = (
        f"{options.kept} {options.folds} {options.search_cells} {options.seed} {options.risk} {sample.tested}".encode()
    )
    digest = hashlib.sha256(plan + features.tobytes() + sample.parts.tobytes()).hexdigest()
    results = {}
    for name in options.kernels:
        note = options.out / f"{name}.json"
        done = json.loads(note.read_text()) if options.resume and note.exists() else {}
        if done.get("digest") != digest:
            found = fitting.fit(name, options.out)
            if options.classes == "blast":
                found["cross_validated"] = fitting.cross_validated(name)
            done = {"digest": digest, **found}
            note.write_text(json.dumps(done, indent=1))
        results[name] = done
        print(f"{name}: accuracy {results[name]['accuracy']:.4f} of {results[name]['cells']} cells", flush=True)
    return results


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser("tools.train svm", __doc__)
    parser.add_argument("--network", type=Path, required=True, help="run of tools.train published, darknet53")
    parser.add_argument("--out", type=Path, required=True, help="folder of the machines")
    parser.add_argument("--classes", choices=("five", "blast"), default="five")
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--kept", type=int, default=KEPT, help="features kept")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--search-cells", type=int, default=1500, help="cells at most that kernels are searched on")
    parser.add_argument("--risk", type=float, default=0.05, help="share of errors among cells above the threshold")
    add_margins(parser)
    parser.add_argument("--cells", type=Path, default=Path("runs/cells"), help="folder of the stored cells (1.9 GB)")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    set_threads(options.threads)
    run = json.loads((options.network / "results.json").read_text())
    if run["settings"]["architecture"] != "darknet53":
        raise SystemExit(f"--network: got a run of {run['settings']['architecture']}, expected one of darknet53")
    options.out.mkdir(parents=True, exist_ok=True)
    graph = feature_graph(options.network, run["protocol"]["input_px"])
    onnx.save(graph, options.out / "features.onnx")
    margins = options.margins
    sample = blasts(run, margins) if options.classes == "blast" else five_types(run, options.cells, margins)
    features = features_of(graph, sample, options.out / "features.npz", options.threads)
    results = fit_all(sample, features, options)
    settings = {**plain_settings(options), "margins": list(sample.margins)}
    document = {"settings": settings, "network": run, "names": list(sample.names), "kernels": results}
    (options.out / "results.json").write_text(json.dumps(document, indent=1))
    return 0
