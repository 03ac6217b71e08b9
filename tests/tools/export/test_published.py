"""From the runs of published classifiers to a graph and a card that the stream loads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks are written in PyTorch")
torch.set_num_threads(1)

from engines.models.classifier import Classifier  # noqa: E402
from engines.models.loading import load_classifier  # noqa: E402
from tests.tools.train.test_published import painted  # noqa: E402
from tools.architectures.mlcnn import GROUPS, OTHER, group_name  # noqa: E402
from tools.architectures.published import CLASSES, parts_of  # noqa: E402
from tools.data import CellPicture  # noqa: E402
from tools.data.protocols import PROTOCOLS  # noqa: E402
from tools.evaluate import eight_types as evaluate_classifier  # noqa: E402
from tools.evaluate import published as evaluate_published  # noqa: E402
from tools.export import published as export_published  # noqa: E402
from tools.metrics import classification as measures  # noqa: E402
from tools.train import published as train_published  # noqa: E402
from tools.train.loop import save_checkpoint  # noqa: E402
from tools.train.published import arguments  # noqa: E402


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of ml-cnn at 64 px whose networks were never trained."""
    torch.manual_seed(0)
    options = arguments(
        ["--architecture", "ml-cnn", "--out", str(tmp_path / "run"), "--input-px", "64", "--split", "parts"]
    )
    for part in parts_of("ml-cnn"):
        network = part.make(64)
        torch.nn.init.normal_(network.classes.weight, 0, 3)
        state = {"network": network.state_dict()}
        save_checkpoint(tmp_path / "run" / "repetition-0" / part.name / "best.pt", state)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    protocol = {**asdict(PROTOCOLS["ml-cnn"]), "input_px": 64}
    (tmp_path / "run" / "results.json").write_text(json.dumps({"settings": settings, "protocol": protocol}))
    monkeypatch.setattr(train_published, "data_root", lambda: tmp_path)
    monkeypatch.setattr(train_published, "load_stored", lambda *_, **__: painted())
    return tmp_path / "run"


def test_the_system_is_one_graph_that_says_what_the_networks_say(run: Path, tmp_path: Path) -> None:
    assert export_published.main([str(run), "--name", "two-levels", "--out", str(tmp_path), "--parts"]) == 0
    classifier = load_classifier(str(tmp_path / "two-levels.onnx"), backend="onnxruntime")
    card = classifier.card
    assert card.class_names == CLASSES
    train, export = card.build
    assert train.startswith("python -m tools.train published --architecture ml-cnn --out runs/two-levels --input-px 64")
    assert train.endswith("--split parts --sets pbc")
    assert export == "python -m tools.export published runs/two-levels --name two-levels --risk 0.05"
    assert len(card.training["temperatures"]) == 3
    crops = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    got = classifier.classify_batch(crops).probabilities
    networks = export_published.load_networks(run, "ml-cnn", 64)
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    system = export_published.assemble("ml-cnn", networks, card.training["temperatures"])
    with torch.no_grad():
        expected = system(x).numpy()
    np.testing.assert_allclose(got, expected, atol=5e-3)  # the weights are stored in half precision
    mononuclear = got[:, [card.class_names.index(name) for name in GROUPS["mononuclear"]]].sum(1)
    np.testing.assert_allclose(np.minimum(mononuclear, 1 - mononuclear), OTHER, atol=1e-5)
    assert [entry.group for entry in card.classes] == [group_name(name) for name in CLASSES]


def test_weighing_gives_every_class_a_share(run: Path, tmp_path: Path) -> None:
    assert export_published.main([str(run), "--name", "weighed", "--out", str(tmp_path), "--parts", "--weigh"]) == 0
    classifier = load_classifier(str(tmp_path / "weighed.onnx"), backend="onnxruntime")
    crops = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    assert (classifier.classify_batch(crops).probabilities > 0).all()


def test_two_looks_are_in_the_card_and_in_what_is_fitted(run: Path, tmp_path: Path) -> None:
    given = [str(run), "--out", str(tmp_path), "--parts", "--name"]
    assert export_published.main([*given, "once"]) == 0
    assert export_published.main([*given, "twice", "--margins", "1.2", "1.4"]) == 0
    once, twice = (load_classifier(str(tmp_path / f"{name}.onnx"), backend="onnxruntime") for name in ("once", "twice"))
    assert (once.margins, twice.margins) == ((1.3,), (1.2, 1.4))
    assert twice.card.build[-1].endswith("--risk 0.05 --margins 1.2 1.4")
    cells = export_published.Cells(painted(), ["pbc"], 1.3)
    chosen = np.flatnonzero(np.array(cells.parts) == "validation")
    truth = np.array([CLASSES.index(cells.classes[i]) for i in chosen])
    networks = export_published.load_networks(run, "ml-cnn", 64)
    for classifier, margins in ((once, (1.3,)), (twice, (1.2, 1.4))):
        logits = export_published.pooled_logits(networks[1], cells, chosen, 64, margins)
        mine = [i for i, label in enumerate(truth) if CLASSES[label] in GROUPS["mononuclear"]]
        labels = np.array([GROUPS["mononuclear"].index(CLASSES[truth[i]]) for i in mine])
        fitted = measures.fit_temperature(logits[mine], labels)
        assert classifier.card.training["temperatures"][1] == pytest.approx(fitted, abs=1e-3)
        said = classifier.classify_batch(cells.looks(chosen, 64, margins)).probabilities
        reached = measures.threshold_for_risk(said, truth, 0.05)
        assert classifier.threshold == (round(reached[0], 2) if reached else 0.9)
    with pytest.raises(SystemExit):
        export_published.main([*given, "thrice", "--margins", "1", "2", "3"])


def test_a_card_can_be_measured_with_other_looks(run: Path, tmp_path: Path) -> None:
    assert export_published.main([str(run), "--name", "x", "--out", str(tmp_path), "--parts"]) == 0
    card = load_classifier(str(tmp_path / "x.onnx"), backend="onnxruntime").card
    for margins in ((1.1,), (1.2, 1.4)):
        changed = evaluate_published.with_margins(card, margins)
        assert (changed.input.crop_margin, changed.input.mirrored_margin) == (*margins, None)[:2]
    with pytest.raises(ValueError, match=r"margins of x: got \[1, 2, 3\], expected one or two"):
        evaluate_published.with_margins(card, (1, 2, 3))


@pytest.mark.parametrize("command", [evaluate_published.main, evaluate_classifier.main])
def test_more_than_two_looks_are_refused(command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(["ml-cnn", "--margins", "1", "1.2", "1.4"])
    assert "--margins: got 3 looks, expected one or two" in capsys.readouterr().err


def test_looks_are_pooled_after_what_is_done_to_each(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export_published.main([str(run), "--name", "x", "--out", str(tmp_path), "--parts"]) == 0
    loaded = load_classifier(str(tmp_path / "x.onnx"), backend="onnxruntime")
    classifier = Classifier(evaluate_published.with_margins(loaded.card, (1.0, 1.5)), loaded.engine)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    monkeypatch.setattr(evaluate_published, "read_image", lambda _: picture)
    cell = CellPicture("pbc", "pbc/a.jpg", Path("a"), 64, 64, (16, 16, 48, 48), "monocyte")
    said, changed = evaluate_published._probabilities(classifier, [cell], False, lambda p: p**3)
    np.testing.assert_array_equal(said, evaluate_published.probabilities_of(classifier, [cell]))
    np.testing.assert_allclose(
        said, classifier.classify(picture, np.float32([[16, 16, 48, 48]])).probabilities, atol=1e-6
    )
    np.testing.assert_allclose(changed, said**3 / (said**3).sum(1, keepdims=True), atol=1e-5)
    whole = evaluate_published.probabilities_of(classifier, [cell], whole=True)
    np.testing.assert_allclose(whole, classifier.classify_crops([picture]).probabilities, atol=1e-6)


def test_figures_of_a_set() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]], np.float32)
    found = measures.figures(probabilities, np.array([0, 0, 1, 1]), ("a b", "c"), 0.58)
    entry = measures.card_entry(found, class_limits=True)
    assert (entry["cells"], entry["accuracy"], entry["balanced_accuracy"]) == (4, 0.75, 0.75)
    assert (entry["a_b_recall"], entry["c_precision"]) == (0.5, 0.6667)
    assert (entry["classified"], entry["accuracy_classified"]) == (0.75, 0.6667)
    assert entry["accuracy_low"] < 0.75 < entry["accuracy_high"]


def test_sets_are_measured_as_crops_and_as_pictures(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export_published.main([str(run), "--name", "x", "--out", str(tmp_path), "--parts"]) == 0
    classifier = load_classifier(str(tmp_path / "x.onnx"), backend="onnxruntime")
    cells = [
        CellPicture("pbc", "pbc/a.jpg", Path("a"), 64, 64, (16, 16, 48, 48), "monocyte"),
        CellPicture("pbc", "pbc/b.jpg", Path("b"), 64, 64, (16, 16, 48, 48), "platelet"),
        CellPicture("bccd", "bccd/c.jpg", Path("c"), 64, 64, (16, 16, 48, 48), "eosinophil"),
    ]
    monkeypatch.setattr(evaluate_published, "data_root", lambda: tmp_path)
    monkeypatch.setattr(evaluate_published, "load_splits", lambda _: {c.key: "validation" for c in cells})
    monkeypatch.setattr(evaluate_published, "read_cells", lambda _: cells)
    monkeypatch.setattr(evaluate_published, "read_image", lambda _: np.full((64, 64, 3), 128, np.uint8))
    found = evaluate_published.evaluate(classifier, "validation")
    assert {name: entry["cells"] for name, entry in found.items()} == {"bccd": 1, "pbc": 1, "pbc whole": 1}
