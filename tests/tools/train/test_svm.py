"""From a run of DarkNet-53 to machines, a graph and a card, on painted cells and a network of one convolution."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks are written in PyTorch")
pytest.importorskip("sklearn", reason="the machines are fitted by scikit-learn")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from engines.base import Detections  # noqa: E402
from engines.models.loading import load_classifier  # noqa: E402
from tests.tools.train.test_published import painted  # noqa: E402
from tools.architectures import support_vectors  # noqa: E402
from tools.architectures.published import CLASSES  # noqa: E402
from tools.architectures.support_vectors import PairMachines  # noqa: E402
from tools.data import CellPicture, DataSetMissing, blasts, typed_cells  # noqa: E402  # noqa: E402
from tools.data.protocols import PROTOCOLS  # noqa: E402
from tools.evaluate import published as evaluate_published  # noqa: E402
from tools.export import svm as export_svm  # noqa: E402
from tools.train import published as train_published  # noqa: E402
from tools.train import svm as train_svm  # noqa: E402
from tools.train.loop import save_checkpoint  # noqa: E402

PX = 32


class Toy(nn.Module):
    """Stands for DarkNet-53: 24 features of 8x8 patches."""

    def __init__(self, types: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.types = nn.Linear(24, types)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of tools.train published."""
    torch.manual_seed(0)
    run = tmp_path / "network"
    save_checkpoint(run / "repetition-0" / "network" / "best.pt", {"network": Toy(len(CLASSES)).state_dict()})
    given = f"--architecture darknet53 --out {run} --input-px {PX} --split parts --augment --device cpu"
    options = train_published.arguments(given.split())
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    protocol = {**asdict(PROTOCOLS["darknet53"]), "input_px": PX}
    (run / "results.json").write_text(json.dumps({"settings": settings, "protocol": protocol}))
    stored = painted(16)
    monkeypatch.setattr(train_svm, "TypedDarkNet53", Toy)
    monkeypatch.setattr(train_svm, "data_root", lambda: tmp_path)
    monkeypatch.setattr(train_published, "load_stored", lambda *_, **__: stored)
    monkeypatch.setattr(train_published, "data_root", lambda: tmp_path)
    monkeypatch.setattr(typed_cells, "build_groups", lambda: {cell.key: [cell.key] for cell in stored.cells})
    monkeypatch.setattr(support_vectors, "SEARCH_RANGE", (1.0, 10.0))
    return run


def fit(network: Path, out: Path, *more: str) -> dict:
    given = ["--network", str(network), "--out", str(out), "--kept", "15", "--folds", "3", *more]
    assert train_svm.main(given) == 0
    return json.loads((out / "results.json").read_text())


def test_the_publications_protocol_is_the_default() -> None:
    p = PROTOCOLS["darknet53"]
    assert (p.input_px, p.rate, p.batch, p.epochs, p.optimizer) == (256, 1e-3, 12, 100, "sgdm")
    options = train_svm.arguments(["--network", "a", "--out", "b"])
    assert (options.kept, options.kernels) == (500, ["quadratic", "cubic", "optimised"])
    assert pytest.approx((0.001, 0.01, 0.1, 1, 10, 100)) == support_vectors.SEARCH_RANGE


def test_the_graph_of_the_whole_chain_says_what_scikit_learn_says(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "svm"
    found = fit(network, out)
    assert list(found["kernels"]) == ["quadratic", "cubic", "optimised"]
    for entry in found["kernels"].values():
        assert entry["accuracy"] > 0.9
        assert entry["cells"] == 20
        assert entry["graph_differs_by"] < 1e-4
    assert export_svm.main([str(out), "--name", "toy-svm", "--out", str(tmp_path), "--kernel", "cubic", "--parts"]) == 0
    classifier = load_classifier(str(tmp_path / "toy-svm.onnx"), backend="onnxruntime")
    card = classifier.card
    assert card.class_names == CLASSES
    train, machines, export = card.build
    assert train == (
        f"python -m tools.train published --architecture darknet53 --out {network} --input-px {PX} --augment "
        "--split parts --sets pbc"
    )
    assert machines.endswith("--out runs/toy-svm --classes five --kept 15 --folds 3")
    assert export == "python -m tools.export svm runs/toy-svm --name toy-svm --kernel cubic"
    sample = train_svm.five_types(json.loads((network / "results.json").read_text()), Path("unused"))
    with np.load(out / "features.npz") as file:
        features = file["features"]
    rows = sample.parts == "train"
    kernel = support_vectors.Kernel("polynomial", 3, support_vectors.usual_scale(15))
    fitted = PairMachines(features[rows, 0], sample.labels[rows], sample.groups[rows], kernel, kept=15, folds=3)
    plain = fitted.probabilities(features[:, 0])
    tempered = plain ** (1 / card.training["temperature"])
    expected = tempered / tempered.sum(1, keepdims=True)
    got = classifier.classify_batch(sample.looks(np.arange(len(rows)))).probabilities
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_array_equal(got.argmax(1), plain.argmax(1))


def test_machines_of_two_looks_are_fitted_to_both_and_pool_them(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "svm"
    entry = fit(network, out, "--kernels", "quadratic", "--margins", "1.2", "1.5")["kernels"]["quadratic"]
    assert entry["graph_differs_by"] < 1e-4
    sample = train_svm.five_types(json.loads((network / "results.json").read_text()), Path("unused"), [1.2, 1.5])
    every = np.arange(len(sample.labels))
    np.testing.assert_array_equal(sample.looks(every)[:, 1], sample.crops(every, 1.5)[:, :, ::-1])
    with np.load(out / "features.npz") as file:
        features = file["features"]
    assert features.shape == (len(every), 2, 24)
    rows = sample.parts == "train"
    kernel = support_vectors.Kernel("polynomial", 2, support_vectors.usual_scale(15))
    examples = features[rows].reshape(-1, 24), np.repeat(sample.labels[rows], 2), np.repeat(sample.groups[rows], 2)
    fitted = PairMachines(*examples, kernel, kept=15, folds=3)
    logs = np.log(np.stack([fitted.probabilities(features[:, k]) for k in range(2)])).mean(0) / entry["temperature"]
    expected = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)

    given = [str(out), "--name", "toy-svm", "--out", str(tmp_path), "--kernel", "quadratic", "--parts"]
    assert export_svm.main(given) == 0
    classifier = load_classifier(str(tmp_path / "toy-svm.onnx"), backend="onnxruntime")
    assert (classifier.card.input.crop_margin, classifier.card.input.mirrored_margin) == (1.2, 1.5)
    assert classifier.card.build[1].endswith("--kept 15 --folds 3 --margins 1.2 1.5")
    got = classifier.classify_batch(sample.looks(every)).probabilities
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_stopped_run_goes_on_and_other_options_start_anew(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit(network, tmp_path / "svm", "--kernels", "quadratic", "cubic")
    fitted: list[str] = []
    really = train_svm.Fitting.fit

    def counted(self: train_svm.Fitting, name: str, out: Path) -> dict:
        fitted.append(name)
        return really(self, name, out)

    monkeypatch.setattr(train_svm.Fitting, "fit", counted)
    again = fit(network, tmp_path / "svm", "--kernels", "quadratic", "cubic", "--resume")
    assert (fitted, again["kernels"]) == ([], first["kernels"])
    fit(network, tmp_path / "svm", "--kernels", "cubic", "--resume", "--seed", "1")
    assert fitted == ["cubic"]


def chance(cells: int = 80) -> tuple[train_svm.Sample, np.ndarray]:
    """Pairs of cells of one group, their classes and features drawn by lot."""
    rng = np.random.default_rng(5)
    labels = np.repeat(rng.permutation(cells // 2) % 2, 2)
    groups = np.repeat([f"group {n:02}" for n in range(cells // 2)], 2)
    parts, keys = np.full(cells, "train"), [str(n) for n in range(cells)]
    sample = train_svm.Sample(blasts.BLAST_CLASSES, labels, groups, parts, "validation", keys, lambda *_: None, [1.2])
    return sample, rng.normal(size=(cells, 1, 30)).astype(np.float32)


@pytest.mark.parametrize("kernel", ["cubic", "optimised"])
def test_cross_validated_cells_are_named_by_machines_that_saw_nothing_of_their_group(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support_vectors, "SEARCH_RANGE", (1.0, 10.0))
    sample, features = chance()
    options = train_svm.arguments(["--network", "a", "--out", "b", "--kept", "30", "--folds", "4"])
    fitting = train_svm.Fitting(sample, features, options)
    fitted: list[set[str]] = []
    searched: list[set[str]] = []
    named: list[int] = []
    machines, choose, pooled = fitting.machines, fitting.kernel, fitting._pooled

    def choosing(name: str, rows: np.ndarray) -> object:
        searched.append(set(sample.groups[rows]))
        return choose(name, rows)

    def fitting_machines(rows: np.ndarray, chosen: support_vectors.Kernel) -> PairMachines:
        fitted.append(set(sample.groups[rows]))
        return machines(rows, chosen)

    def naming(by: PairMachines, rows: np.ndarray) -> np.ndarray:
        assert not fitted[-1] & set(sample.groups[rows])
        assert not searched[-1] & set(sample.groups[rows])
        named.extend(rows.tolist())
        return pooled(by, rows)

    monkeypatch.setattr(fitting, "kernel", choosing)
    monkeypatch.setattr(fitting, "machines", fitting_machines)
    monkeypatch.setattr(fitting, "_pooled", naming)
    figures = fitting.cross_validated(kernel)
    assert sorted(named) == list(range(80))  # each once
    assert len(fitted) == len(searched) == 4
    assert figures["cells"] == 80


def test_a_graph_that_float32_cannot_hold_is_refused(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(network, tmp_path / "svm", "--kernels", "quadratic")
    monkeypatch.setattr(export_svm, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(SystemExit, match=r"quadratic kernel: got probabilities .* from scikit-learn's"):
        export_svm.main([str(tmp_path / "svm"), "--name", "x", "--out", str(tmp_path), "--kernel", "quadratic"])


def test_a_run_of_another_network_is_refused(network: Path, tmp_path: Path) -> None:
    document = json.loads((network / "results.json").read_text())
    document["settings"]["architecture"] = "vgg19"
    (network / "results.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit, match="got a run of vgg19, expected one of darknet53"):
        fit(network, tmp_path / "svm")


class Finder:
    """Finds what a test scripted, picture by picture."""

    def __init__(self, *found: list[tuple[float, float, float, float, int]]) -> None:
        self.found = list(found)

    def detect(self, frames: list[np.ndarray]) -> list[Detections]:
        rows = np.array(self.found.pop(0), np.float32).reshape(-1, 5)
        labels = rows[:, 4].astype(np.intp)
        scores = np.linspace(0.9, 0.5, len(rows)).astype(np.float32)
        return [Detections(rows[:, :4], scores, labels, ("WBC", "RBC"), ("white", "red"), False)]


@pytest.fixture
def leukaemia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Finder]:
    """Sixty pictures in the manner of ALL-IDB2, blasts dark; each is a group."""
    folder = tmp_path / "all_idb2"
    folder.mkdir()
    lines, found = ["file,class"], []
    rng = np.random.default_rng(0)
    for i in range(60):
        label = blasts.BLAST_CLASSES[i % 2]
        picture = np.full((50, 40, 3), 210, np.uint8)
        picture[15:35, 10:30] = 60 + 80 * (i % 2)
        cv2.imwrite(str(folder / f"Im{i:03}.png"), picture + rng.integers(0, 20, picture.shape, np.uint8))
        lines.append(f"Im{i:03}.png,{label}")
        found.append([(10, 15, 30, 35, 0)] if i else [(9, 9, 30, 35, 1), (0, 0, 9, 9, 0)])
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    groups = {f"all_idb2/Im{i:03}.png": [f"all_idb2/Im{i:03}.png"] for i in range(60)}
    monkeypatch.setattr(blasts, "build_groups", lambda _: groups)
    finder = Finder(*found)
    for module in (train_svm, evaluate_published):
        monkeypatch.setattr(module, "load_detector", lambda *_, **__: Finder(*finder.found))
        monkeypatch.setattr(module, "data_root", lambda: tmp_path)
    return tmp_path, finder


def test_a_cell_is_the_largest_white_box_over_the_centre(leukaemia: tuple[Path, Finder]) -> None:
    root, finder = leukaemia
    finder.found[1] = [(2, 2, 22, 30, 0), (10, 15, 30, 35, 0), (18, 20, 26, 30, 0), (0, 0, 40, 50, 1)]
    cells = blasts.read_blasts(root, finder)  # type: ignore[arg-type]
    assert [cell.box_is_guess for cell in cells[:3]] == [True, False, False]
    assert cells[0].box_px == (11.25, 16.25, 28.75, 33.75)
    assert cells[1].box_px == (2, 2, 22, 30)
    assert (cells[1].cell_class, cells[2].cell_class) == ("non-blast", "blast")
    parts = blasts.blast_parts(cells, root)
    assert 10 < parts.count("validation") < 26
    assert parts.count("validation") + parts.count("train") == 60
    with pytest.raises(DataSetMissing, match=r"got no .*labels.csv, expected it"):
        blasts.read_blasts(root / "elsewhere", finder)  # type: ignore[arg-type]


def test_blasts_are_told_by_the_same_network_and_measured_by_the_same_command(
    network: Path, leukaemia: tuple[Path, Finder], tmp_path: Path
) -> None:
    found = fit(network, tmp_path / "svm", "--classes", "blast", "--kernels", "optimised")["kernels"]["optimised"]
    whole = found["cross_validated"]
    assert (whole["cells"], whole["accuracy"]) == (60, 1.0)
    assert whole["accuracy_low"] == pytest.approx(0.025 ** (1 / 60), abs=1e-4)  # Clopper-Pearson of 60 of 60
    assert found["temperature"] == 1
    assert export_svm.main([str(tmp_path / "svm"), "--name", "toy-blast", "--out", str(tmp_path)]) == 0
    classifier = load_classifier(str(tmp_path / "toy-blast.onnx"), backend="onnxruntime")
    card = classifier.card
    assert card.thresholds.operating == whole["threshold"]
    assert card.class_names == ("blast", "non-blast")
    assert card.licence.startswith("research use only, as the data that trained it (")
    assert card.figures["all_idb2", "", "cross-validation"]["cells"] == 60
    measured = card.figures["all_idb2", "", "validation"]
    assert measured["command"] == "python -m tools.evaluate toy-blast --part validation"
    assert (measured["cells"], measured["accuracy"]) == (found["cells"], 1.0)
    assert evaluate_published.cells_of(("blast", "non-blast"), "holdout") == []


def test_typed_cells_stay_those_of_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [
        CellPicture("pbc", f"pbc/{name}", Path(name), 9, 9, (0, 0, 9, 9), kind)
        for name, kind in (("a", "monocyte"), ("b", "monocyte"), ("c", "platelet"))
    ]
    monkeypatch.setattr(evaluate_published, "data_root", lambda: Path())
    monkeypatch.setattr(evaluate_published, "read_cells", lambda _: cells)
    monkeypatch.setattr(
        evaluate_published, "load_splits", lambda _: {"pbc/a": "validation", "pbc/b": "train"} | {"pbc/c": "validation"}
    )
    assert [cell.key for cell in evaluate_published.cells_of(CLASSES, "validation")] == ["pbc/a"]
