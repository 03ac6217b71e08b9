"""What the classifier of normal and abnormal cells is taught: losses by hand, cells painted over, clear errors."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from tests.tools.cases import smear  # noqa: E402
from tools.data import (  # noqa: E402
    ABNORMAL_CLASSES,
    ABNORMAL_SUBCLASSES,
    TRAIN,
    VALIDATION,
    CellPicture,
    augment,
)
from tools.data.located import LocatedCell  # noqa: E402
from tools.data.squares import LOOK_RED_CELLS, STORED_PX, SUBCLASS_NAMES, Squares  # noqa: E402
from tools.train import __main__ as command  # noqa: E402
from tools.train import classifier  # noqa: E402
from tools.train.classifier import (  # noqa: E402
    ATTRIBUTE_SIZES,
    SHORT,
    SUBCLASS_OF,
    ClassifierTask,
    Recipe,
    abnormal_loss,
    attribute_loss,
    build_network,
    class_loss,
    soft_loss,
    soft_subclass_loss,
    subclass_loss,
    unusual_loss,
)
from tools.train.loop import LAST, Loop, Schedule  # noqa: E402

N = len(ABNORMAL_CLASSES)
TINY = dataclasses.replace(SHORT, crops=32, batch=8, input_px=32, warmup_steps=2, fixed_share=0.5, covered_share=0.3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def index(label: str) -> int:
    return ABNORMAL_CLASSES.index(label)


def logits_of(*probabilities: dict[str, float]) -> torch.Tensor:
    """Logits whose softmax is what is given, the rest shared by the other classes."""
    rows = []
    for given in probabilities:
        row = np.full(N, (1 - sum(given.values())) / (N - len(given)))
        for label, p in given.items():
            row[index(label)] = p
        rows.append(np.log(np.maximum(row, 1e-30)))
    return torch.tensor(np.array(rows), dtype=torch.float64) + 3  # a constant changes nothing


def test_class_loss_of_cells_that_are_shown_and_that_are_not() -> None:
    logits = logits_of({"blast": 0.5}, {"blast": 0.25})
    classes = torch.tensor([index("blast"), index("blast")])
    shown = torch.tensor([True, True])
    prior = torch.zeros(N, dtype=torch.float64)
    prior[index("neutrophil")], prior[index("blast")] = 0.75, 0.25
    plain = class_loss(logits, classes, shown, prior, 0.0)
    assert float(plain) == pytest.approx((np.log(2) + np.log(4)) / 2)
    smoothed = float(class_loss(logits[:1], classes[:1], shown[:1], prior, 0.1))
    rest = -np.log(0.05)
    assert smoothed == pytest.approx((0.9 + 0.1 / N) * np.log(2) + 0.1 * (N - 1) / N * rest)
    covered = class_loss(logits, classes, torch.tensor([True, False]), prior, 0.0)
    of_covered = -(0.25 * np.log(0.25) + 0.75 * np.log(0.075))
    assert float(covered) == pytest.approx((np.log(2) + of_covered) / 2)


def test_what_a_covered_cell_is_taught_does_not_depend_on_its_class() -> None:
    prior = torch.softmax(torch.arange(N, dtype=torch.float32), 0)
    hidden = torch.tensor([False])
    losses = {float(class_loss(torch.zeros(1, N), torch.tensor([c]), hidden, prior, 0.05)) for c in range(N)}
    assert len(losses) == 1
    logits = (torch.log(prior)[None] + 2).requires_grad_()
    class_loss(logits, torch.tensor([index("blast")]), hidden, prior, 0.05).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(1, N))  # who says the prior is right already


def test_abnormal_against_mature() -> None:
    logits = logits_of(
        {"blast": 0.3, "immature granulocyte": 0.3, "lymphocyte": 0.1, "monocyte": 0.1},
        {"neutrophil": 0.2, "eosinophil": 0.2, "blast": 0.1, "immature granulocyte": 0.0},
        {"smudge cell": 0.9},
    )
    others = 0.2 / (N - 4)  # of basophil, eosinophil and neutrophil in the first
    mature = 0.2 + 3 * others
    first = -np.log(0.6 / (0.6 + mature))
    more = 0.4 + 3 * 0.5 / (N - 4)
    second = -np.log(more / (more + 0.1))
    classes = torch.tensor([index("immature granulocyte"), index("basophil"), index("smudge cell")])
    assert float(abnormal_loss(logits, classes)) == pytest.approx((first + second) / 3, rel=1e-6)
    for label in ("smudge cell", "artefact", "platelet", "erythroblast"):
        assert float(abnormal_loss(logits[2:], torch.tensor([index(label)]))) == 0
    assert float(abnormal_loss(logits[:0], classes[:0])) == 0


def test_subclasses_compete_within_their_parent_alone() -> None:
    parents = {
        name: [n for n, c in enumerate(SUBCLASS_NAMES) if ABNORMAL_SUBCLASSES[c] == name] for name in ABNORMAL_CLASSES
    }
    assert parents == dict(zip(ABNORMAL_CLASSES, SUBCLASS_OF, strict=True))
    band, segmented = (SUBCLASS_NAMES.index(f"{name} neutrophil") for name in ("band", "segmented"))
    logits = torch.zeros(2, len(SUBCLASS_NAMES), dtype=torch.float64)
    logits[0, segmented] = np.log(3)
    logits[:, SUBCLASS_NAMES.index("promyelocyte")] = 50  # of another parent
    found = subclass_loss(logits, torch.tensor([band, segmented]), 0.0, batch=8)
    assert float(found) == pytest.approx((np.log(4) + np.log(2)) / 8)
    variant = torch.tensor([SUBCLASS_NAMES.index("variant lymphocyte")])
    assert float(subclass_loss(logits[:1], variant, 0.0, batch=8)) == 0  # the only subclass of its parent
    assert float(subclass_loss(logits[:0], variant[:0], 0.0, batch=8)) == 0


def test_an_unusual_cell_is_told_from_the_usual_one_of_its_class() -> None:
    variant = SUBCLASS_NAMES.index("variant lymphocyte")
    logits = torch.zeros(3, len(SUBCLASS_NAMES))
    logits[:, variant] = torch.tensor([2.0, 2.0, 2.0])
    lymphocyte, monocyte = ABNORMAL_CLASSES.index("lymphocyte"), ABNORMAL_CLASSES.index("monocyte")
    classes, subclasses = torch.tensor([lymphocyte, lymphocyte, monocyte]), torch.tensor([variant, -1, -1])
    p = 1 / (1 + np.exp(-2.0))
    expected = (-np.log(p) - np.log(1 - p)) / 8
    assert float(unusual_loss(logits, classes, subclasses, 0.0, batch=8)) == pytest.approx(expected, rel=1e-6)
    assert float(unusual_loss(logits[2:], classes[2:], subclasses[2:], 0.0, batch=8)) == 0
    promyelocyte = torch.tensor([SUBCLASS_NAMES.index("promyelocyte")])
    immature = torch.tensor([ABNORMAL_CLASSES.index("immature granulocyte")])
    assert float(unusual_loss(logits[:1], immature, promyelocyte, 0.0, batch=8)) == 0  # it has siblings


def test_a_run_is_never_begun_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / LAST).write_bytes(b"a run")
    assert command.main(["classifier", "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert "--resume" in line
    assert (tmp_path / LAST).read_bytes() == b"a run"


def test_children_of_a_parent_lie_side_by_side() -> None:
    for children in SUBCLASS_OF:
        assert children == list(range(children[0], children[0] + len(children))) if children else True


def test_attributes_of_cells_that_nobody_looked_at_add_nothing() -> None:
    logits = torch.zeros(2, sum(ATTRIBUTE_SIZES))
    none = torch.full((2, len(ATTRIBUTE_SIZES)), -1)
    assert float(attribute_loss(logits, none)) == 0
    one = none.clone()
    one[0, 0] = 1
    expected = np.log(ATTRIBUTE_SIZES[0]) / (2 * len(ATTRIBUTE_SIZES))
    assert float(attribute_loss(logits, one)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(8))
def test_a_cell_that_is_painted_over_is_gone_and_its_neighbours_stay(seed: int) -> None:
    square = np.full((224, 224, 3), 215, np.uint8)
    square[90:130, 90:150] = (150, 40, 90)  # the cell fills its box, but for its corners
    square[90:130, 90:150][np.hypot(*np.mgrid[-20:20, -30:30] / np.array([[[20]], [[30]]])) > 1] = 215
    square[5:35, 10:60] = (80, 60, 200)
    before = square.copy()
    out = augment.painted_over(square, np.float32([90, 90, 150, 130]), np.random.default_rng(seed))
    np.testing.assert_array_equal(square, before)
    assert out.dtype == np.uint8
    assert out[90:130, 90:150].min() > 200
    np.testing.assert_array_equal(out[5:35, 10:60], square[5:35, 10:60])


def squares_of(n: int = 24) -> Squares:
    """Cells of pbc and deepapl; every fourth is for validation."""
    labels = ("neutrophil", "lymphocyte", "blast", "monocyte")
    classes = np.array([index(labels[i % 4]) for i in range(n)])
    return Squares(
        squares=np.stack([smear(i, STORED_PX, STORED_PX) for i in range(n)]),
        boxes=np.tile(np.float32([90, 90, 160, 150]), (n, 1)),
        rbc_px=np.where(np.arange(n) % 3 == 0, np.nan, 50).astype(np.float32),
        classes=classes,
        subclasses=np.where(classes == index("neutrophil"), 0, -1),
        attributes=np.full((n, len(ATTRIBUTE_SIZES)), -1),
        laboratories=np.array(["pbc" if i % 2 else "deepapl" for i in range(n)]),
        parts=np.array([VALIDATION if i // 4 % 4 == 3 else TRAIN for i in range(n)]),
        cells=(),
    )


def task(recipe: Recipe = TINY, teacher: classifier.CellNetwork | None = None) -> ClassifierTask:
    torch.manual_seed(0)
    return ClassifierTask(recipe, squares_of(), {}, None, pretrained=False, teacher=teacher)


def test_no_cell_of_validation_is_drawn_and_what_is_covered_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = task(dataclasses.replace(TINY, batch=64))
    seen: Counter[int] = Counter()
    told: dict[str, np.ndarray] = {}
    original, loss = classifier.make_batch, classifier.class_loss

    def batch(squares: np.ndarray, boxes: np.ndarray, drawn: np.ndarray, *rest: object, **more: np.ndarray) -> object:
        seen.update(drawn.tolist())
        told.update(more, drawn=drawn)
        return original(squares, boxes, drawn, *rest, **more)  # type: ignore[arg-type]

    def spy(logits: torch.Tensor, classes: torch.Tensor, shown: torch.Tensor, *rest: object) -> torch.Tensor:
        told.update(shown=shown.numpy(), classes=classes.numpy())
        return loss(logits, classes, shown, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(classifier, "make_batch", batch)
    monkeypatch.setattr(classifier, "class_loss", spy)
    found, _ = subject.loss(0, np.random.default_rng(3))
    assert torch.isfinite(found)
    assert set(seen) <= set(subject.stored.select(TRAIN).tolist())
    assert set(seen) & set(subject.stored.select(VALIDATION).tolist()) == set()
    np.testing.assert_array_equal(told["shown"], ~told["covered"])
    assert 5 < told["covered"].sum() < 40
    np.testing.assert_array_equal(told["classes"], subject.stored.classes[told["drawn"]])
    expected = LOOK_RED_CELLS * subject.stored.rbc_px[told["drawn"]]
    np.testing.assert_array_equal(told["fixed_px"], expected)


def test_a_batch_of_covered_cells_teaches_neither_subclass_nor_attribute() -> None:
    subject = task(dataclasses.replace(TINY, covered_share=1.0))
    subject.loss(0, np.random.default_rng(0))[0].backward()
    for head in (subject.network.subclasses, subject.network.attributes):
        assert head is not None
        assert head.weight.grad is None or not head.weight.grad.any()
    assert subject.network.classes.weight.grad.any()


def test_a_fixed_look_shows_the_same_share_of_the_picture_whatever_the_box() -> None:
    how = dataclasses.replace(
        augment.Augmentation(), fixed_share=1.0, fixed_scale=(1.0, 1.0), shift=0.0, coarse_share=0.0
    )
    square = np.full((256, 256, 3), 255, np.uint8)
    rng = np.random.default_rng(0)
    for side in (40, 80):
        box = np.float32([128 - side / 2] * 2 + [128 + side / 2] * 2)
        _, factor = augment.crop(square, box, 64, rng, how, fixed_px=160.0)
        assert factor * side == pytest.approx(160)
    _, factor = augment.crop(square, np.float32([28, 28, 228, 228]), 64, rng, how, fixed_px=160.0)
    assert factor == 1  # never cuts the cell
    factors = {augment.crop(square, box, 64, rng, how)[1] for _ in range(20)}
    assert len(factors) == 20  # of unknown magnification: the look around the box


def test_a_run_of_the_classifier_resumes_with_the_same_bits(tmp_path: Path) -> None:
    schedule = Schedule(steps=4, warmup_steps=2, average_decay=0.9, measured_every=4)

    def loop(name: str) -> Loop[classifier.CellNetwork]:
        return Loop(task(), schedule, tmp_path / name, say=lambda line: None)

    whole, first, second = loop("whole"), loop("parts"), loop("parts")
    whole.run()
    first.take_step()
    first.save()
    second.resume(tmp_path / "parts" / LAST)
    second.run()
    for name, value in whole.average.network.state_dict().items():
        assert torch.equal(value, second.average.network.state_dict()[name]), name


def test_what_the_teacher_says_is_learnt_and_not_what_it_leaves_open() -> None:
    wanted = logits_of({"blast": 0.75, "lymphocyte": 0.25}, {"monocyte": 1.0})
    certain = soft_loss(wanted * 1.0, wanted)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / 2
    assert float(certain) == pytest.approx(entropy, abs=1e-6)
    other = logits_of({"blast": 0.25, "lymphocyte": 0.75}, {"monocyte": 0.5, "blast": 0.5})
    expected = -(0.75 * np.log(0.25) + 0.25 * np.log(0.75) + np.log(0.5)) / 2
    assert float(soft_loss(other, wanted)) == pytest.approx(expected, abs=1e-6)
    halves = torch.zeros(2, 3)
    assert float(soft_subclass_loss(halves, torch.tensor([[9.0, -9.0, 0.0]] * 2))) == pytest.approx(np.log(2), abs=1e-6)


def test_a_teacher_alone_makes_the_labels_worth_nothing_and_stays_as_it_is() -> None:
    teacher = build_network(TINY, pretrained=False)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    losses = []
    for weight, relabelled in ((1.0, False), (1.0, True), (0.5, False), (0.5, True)):
        subject = task(dataclasses.replace(TINY, teacher_weight=weight, attribute_weight=0.0), teacher)
        if relabelled:
            subject.stored.classes[:] = index("platelet")
        subject.network.eval()  # no batch statistics
        found, _ = subject.loss(0, np.random.default_rng(0))
        found.backward()
        losses.append(float(found.detach()))
    assert losses[0] == pytest.approx(losses[1])
    assert losses[2] != pytest.approx(losses[3])
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())


def test_from_a_step_on_colours_are_changed_less_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = task(dataclasses.replace(TINY, milder_from=0.5, milder=0.25, style_share=0.4, apart=1.0))
    used: list[augment.Augmentation] = []
    original = classifier.make_batch

    def spy(*given: Any, **more: Any) -> object:
        used.append(given[5])
        return original(*given, **more)

    monkeypatch.setattr(classifier, "make_batch", spy)
    styles = []
    for step in range(TINY.steps):
        subject.loss(step, np.random.default_rng(step))
        styles.append(subject.network.style_share)
    assert styles == pytest.approx([0.4, 0.4, 0.1, 0.1])
    assert used[:2] == [classifier.augmentation(subject.recipe)] * 2
    strong, mild = dataclasses.asdict(used[0]), dataclasses.asdict(used[3])
    assert {name for name in strong if strong[name] != mild[name]} == set(augment.COLOURS)
    assert mild["hue_rad"] == pytest.approx(strong["hue_rad"] / 4)
    assert mild["appearance_share"] == pytest.approx(strong["appearance_share"] / 4)


def test_body_and_heads_learn_at_their_own_rates_and_only_matrices_decay() -> None:
    subject = task(dataclasses.replace(TINY, body_rate=1e-4, head_rate=1e-2, weight_decay=0.03))
    groups = subject.optimizer().param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(subject.network.parameters()))
    found = {id(p): (group["peak"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found[id(subject.network.classes.weight)] == (1e-2, 0.03)
    assert found[id(subject.network.classes.bias)] == (1e-2, 0.0)
    body = list(subject.network.features.parameters())
    assert {found[id(p)] for p in body if p.ndim > 1} == {(1e-4, 0.03)}
    assert {found[id(p)] for p in body if p.ndim <= 1} == {(1e-4, 0.0)}


def test_the_short_form_is_the_same_but_small_and_settings_are_the_recipe() -> None:
    long = Recipe()
    assert (long.steps, SHORT.steps) == (15_625, 625)
    assert task().settings() == dataclasses.asdict(TINY)
    with pytest.raises(ValueError, match="architecture: got 'vgg', expected efficientnet-lite0 or mobilenetv3-small"):
        build_network(dataclasses.replace(SHORT, architecture="vgg"), pretrained=False)


BAD = {
    "no name": ([], "required: NAME"),
    "another name": (["segmentor", "--out", "x"], "invalid choice: 'segmentor'"),
    "no folder": (["classifier"], "required: --out"),
    "a word for a number": (["classifier", "--out", "x", "--crops", "many"], "--crops: invalid int value: 'many'"),
    "an unknown option": (["classifier", "--out", "x", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
    "nothing to pack": (["pack"], "required: checkpoint, out"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=list(BAD))
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_what_can_not_begin_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEUKOSTREAM_DATA", str(tmp_path / "nowhere"))
    for arguments, message in (
        (["classifier", "--out", str(tmp_path)], "data folder: got"),
        (["pack", str(tmp_path / "no.pt"), str(tmp_path / "small.pt")], "checkpoint: got no file at"),
    ):
        assert command.main(arguments) == 1
        printed = capsys.readouterr().err
        assert printed.startswith(f"python -m tools.train {arguments[0]}: {message}")
        assert printed.count("\n") == 1


def test_laboratories_of_validation_and_one_that_is_left_out_never_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("pbc/a.jpg", "krd/b.jpg", "marrow/c.jpg", "wbc_masks/jtsc/d.png", "wbc_masks/cellavision/e.png")
    cells = [CellPicture(k.split("/")[0], k, Path(k), 9, 9, (0, 0, 9, 9), "monocyte") for k in keys]
    monkeypatch.setattr(classifier, "data_root", lambda: tmp_path)
    monkeypatch.setattr(classifier, "read_cells", lambda root, sets: cells)
    monkeypatch.setattr(classifier, "locate", lambda cells: [LocatedCell(c, False, None) for c in cells])
    monkeypatch.setattr(classifier, "load_splits", lambda root: dict.fromkeys(keys, TRAIN))
    told: list[object] = []
    monkeypatch.setattr(classifier, "load_squares", lambda *given: told.extend(given))
    classifier.load_cells(dataclasses.replace(SHORT, leave_out="krd", without="marrow"), tmp_path)
    _, _, kept, parts, left_out = told
    assert [one.cell.key for one in kept] == [k for k in keys if not k.startswith("marrow")]  # type: ignore[attr-defined]
    assert left_out == ("wbc_masks/jtsc", "wbc_masks/cellavision", "krd")
    assert set(parts.values()) == {TRAIN}  # type: ignore[attr-defined]


@pytest.mark.parametrize("option", ["--leave-out", "--without"])
def test_a_laboratory_that_is_not_known_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr(classifier, "data_root", lambda: tmp_path)
    monkeypatch.setattr(classifier, "read_cells", lambda root, sets: [])
    assert command.main(["classifier", "--out", str(tmp_path), "--short", option, "raabin"]) == 1
    assert f"{option}: got 'raabin', expected one of" in capsys.readouterr().err
