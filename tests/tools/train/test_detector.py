"""Training: steps lower the loss, a resumed run equals an uninterrupted one, small checkpoints go on, anchors fit."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training is written in PyTorch")
torch.set_num_threads(1)  # idle threads of a small test spin on busy machines

from engines.geometry import iou_matrix  # noqa: E402
from tests.tools.detection_cases import disc_field, disc_maker  # noqa: E402
from tools.architectures.yolov5 import YOLOv5, yolov5  # noqa: E402
from tools.metrics.predict import OnnxPredictor, TorchPredictor, decode  # noqa: E402
from tools.train.anchors import best_ratio, fit_anchors, fitness  # noqa: E402
from tools.train.loop import LAST, Loop, MovingAverage, load_checkpoint  # noqa: E402
from tools.train.pack import pack  # noqa: E402
from tools.train.tiles import TileSeries, batch_tensors  # noqa: E402
from tools.train.yolov5 import YOLOv5Task, load_averaged, schedule_of  # noqa: E402

ANCHORS = [[[10, 10], [14, 14], [18, 18]], [[20, 20], [26, 26], [32, 32]], [[40, 40], [50, 50], [60, 60]]]


DESCRIPTION = {"size": "n", "class_names": ["WBC", "RBC", "platelet"]}


def loop_of(out: Path, steps: int = 8, peak_lr: float = 1e-3) -> Loop[YOLOv5]:
    torch.manual_seed(0)
    series = TileSeries(disc_maker(side_px=96), 2, seed=4)
    task = YOLOv5Task(yolov5("n", 3, anchors_px=ANCHORS), series, DESCRIPTION["class_names"], peak_lr=peak_lr)
    return Loop(task, schedule_of(steps, seed=4, warmup_steps=2), out, description=DESCRIPTION, say=lambda line: None)


def after(steps: int, out: Path) -> Loop[YOLOv5]:
    """A run that has taken so many steps, and saved them."""
    loop = loop_of(out)
    for _ in range(steps):
        loop.take_step()
    loop.save()
    return loop


def weights(loop: Loop[YOLOv5]) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in loop.task.network.parameters()])


def average_of(loop: Loop[YOLOv5]) -> MovingAverage[YOLOv5]:
    assert loop.average is not None
    return loop.average


def test_steps_lower_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = loop_of(tmp_path, steps=40, peak_lr=3e-3)
    tiles = TileSeries(disc_maker(side_px=96), 2, seed=4)[1]
    monkeypatch.setattr(TileSeries, "__getitem__", lambda series, number: tiles)
    losses = [subject.take_step()["loss"] for _ in range(14)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = after(4, tmp_path / "whole")
    after(2, tmp_path)
    second = loop_of(tmp_path)
    second.resume(tmp_path / LAST)
    for _ in range(2):
        second.take_step()
    assert torch.equal(weights(second), weights(whole))
    for name, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name


def test_a_run_resumes_with_its_own_anchors(tmp_path: Path) -> None:
    after(1, tmp_path)
    torch.manual_seed(1)
    series = TileSeries(disc_maker(side_px=96), 2, seed=4)
    task = YOLOv5Task(yolov5("n", 3), series, DESCRIPTION["class_names"])
    second, same = Loop(task, schedule_of(8, seed=4, warmup_steps=2), tmp_path), loop_of(tmp_path)
    for loop in (second, same):
        loop.resume(tmp_path / LAST)
    assert torch.equal(task.network.anchors_px, torch.tensor(ANCHORS, dtype=torch.float32))
    assert second.take_step() == same.take_step()  # the loss assigns its targets by them too


def test_tiles_made_ahead_by_other_processes_are_the_same() -> None:
    series = TileSeries(disc_maker(side_px=96), 2, 4)
    plain, ahead = (list(islice(series.from_step(1, workers), 3)) for workers in (0, 2))
    assert len(plain) == len(ahead) == 3
    for ours, theirs in zip(plain, ahead, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a.image, b.image)
            assert np.array_equal(a.targets, b.targets)


def test_some_steps_take_fewer_larger_tiles() -> None:
    series = TileSeries(disc_maker(side_px=96), 8, 4, disc_maker(side_px=192), 0.5)
    batches = [series[number] for number in range(24)]
    kinds = {(len(tiles), tiles[0].image.shape[0]) for tiles in batches}
    assert kinds == {(8, 96), (2, 192)}
    assert 6 < sum(len(tiles) == 2 for tiles in batches) < 18
    assert len(TileSeries(disc_maker(side_px=96), 8, 4)[3]) == 8


def test_a_small_checkpoint_goes_on(tmp_path: Path) -> None:
    after(2, tmp_path)
    pack(tmp_path / LAST, tmp_path / "small.pt")
    assert (tmp_path / "small.pt").stat().st_size < 0.35 * (tmp_path / LAST).stat().st_size
    resumed = loop_of(tmp_path)
    resumed.resume(tmp_path / "small.pt")
    assert resumed.step == 2
    assert torch.equal(resumed.task.network.anchors_px, torch.tensor(ANCHORS, dtype=torch.float32))
    assert np.isfinite(resumed.take_step()["loss"])


def test_the_average_is_what_a_checkpoint_gives(tmp_path: Path) -> None:
    subject = after(1, tmp_path)
    model, description = load_averaged(tmp_path / LAST)
    assert description["class_names"] == ["WBC", "RBC", "platelet"]
    for name, value in average_of(subject).network.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_the_schedule_warms_up_and_ends_low(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, steps=100)
    loop.schedule = schedule_of(100, seed=4, warmup_steps=10)
    rates = []
    for loop.step in range(100):
        rates.append(loop.rate())
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1)
    assert rates[-1] < 0.012
    assert all(np.diff(rates[10:]) <= 0)


def test_batches_carry_the_image_index() -> None:
    maker = disc_maker(side_px=96)
    tiles = [maker.make(1, n) for n in range(3)]
    images, targets, known = batch_tensors(tiles, torch.device("cpu"))
    assert images.shape == (3, 3, 96, 96)
    assert known.shape == (3, 3, 12, 12)
    assert torch.bincount(targets[:, 0].long(), minlength=3).tolist() == [len(t.targets) for t in tiles]
    assert images[1, 2, 5, 7].item() == pytest.approx(tiles[1].image[5, 7, 2] / 255)


def test_anchors_fit_two_kinds_of_boxes() -> None:
    rng = np.random.default_rng(0)
    sizes = np.concatenate((rng.normal(20, 2, (200, 2)), rng.normal((120, 60), 5, (200, 2))))
    anchors = fit_anchors(sizes, seed=1, generations=100)
    assert anchors.shape == (3, 3, 2)
    areas = anchors.prod(2).ravel()
    assert (np.diff(areas) >= 0).all()
    assert fitness(sizes, anchors.reshape(-1, 2)) > 0.9
    assert best_ratio(np.array([[20.0, 20.0]]), np.array([[40.0, 20.0]])).tolist() == [0.5]
    with pytest.raises(ValueError, match="got 3, expected at least 9"):
        fit_anchors(sizes[:3], seed=1)


def test_decode_of_one_cell_by_hand() -> None:
    maps = [torch.full((1, 24, 4 // k, 4 // k), -20.0) for k in (1, 2, 4)]
    view = maps[0].view(1, 3, 8, 4, 4)
    view[0, 1, :4, 2, 3] = 0.0  # centre of the cell, the anchor's own size
    view[0, 1, 4, 2, 3] = 20.0
    view[0, 1, 7, 2, 3] = 20.0
    boxes, scores = decode(tuple(maps), torch.tensor(ANCHORS, dtype=torch.float32))
    best = scores[0].max(1).values.argmax()
    assert boxes[0, best].tolist() == pytest.approx([28 - 7, 20 - 7, 28 + 7, 20 + 7])
    assert scores[0, best].tolist() == pytest.approx([0, 0, 1], abs=1e-4)


def test_the_shipped_graph_finds_what_the_network_finds() -> None:
    from tools.graphs.detector import to_zoo_graph

    torch.manual_seed(0)
    network = yolov5("n", 3, anchors_px=ANCHORS)
    with torch.no_grad():  # normalisation that fits its input, so that scores differ
        for _ in range(40):
            network(torch.rand(2, 3, 64, 96))
        for head in network.heads:
            head.weight.normal_(0, 0.5)
    picture = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    a = TorchPredictor(network, 128, least_score=1e-3)(picture)
    b = OnnxPredictor(to_zoo_graph(network), 128, least_score=1e-3)(picture)
    assert len(a.scores) > 5
    np.testing.assert_allclose(b.scores, a.scores, atol=1e-4)
    overlap = iou_matrix(a.boxes_px, b.boxes_px) * (a.classes[:, None] == b.classes[None])
    assert (overlap.max(1) > 0.99).all()  # scores equal to 1e-7 may stand in another order


def test_a_model_completes_partly_labelled_fields() -> None:
    from tools.metrics.predict import Found
    from tools.train.label_fields import complete_labels

    item = disc_field(1, complete=(False, False, False))
    white = item.boxes_px[:1]
    found = Found(
        np.concatenate((white + 1, white + 200, [[5, 5, 25, 25], [6, 5, 26, 25], [300, 5, 320, 25]]), dtype=np.float32),
        np.array([0.9, 0.8, 0.7, 0.2, 0.2], np.float32),
        np.array([0, 0, 1, 2, 1]),
    )
    item = type(item)(**{**item.__dict__, "boxes_px": white, "classes": item.classes[:1]})
    boxes, classes, ignore = complete_labels(item, found, sure=0.4)
    assert boxes.tolist() == [[5, 5, 25, 25]]
    assert classes.tolist() == [1]
    assert ignore.tolist() == [(white[0] + 200).tolist(), [300, 5, 320, 25]]


def test_a_label_needs_three_of_four_views() -> None:
    from tools.metrics.predict import Found
    from tools.train.label_fields import agreed, mirrored

    def view(*boxes: tuple[float, float, float, float], label: int = 1) -> Found:
        array = np.array(boxes, np.float32).reshape(-1, 4)
        return Found(array, np.full(len(array), 0.9, np.float32), np.full(len(array), label))

    a, b = (0, 0, 10, 10), (50, 0, 60, 10)
    assert agreed([view(a, b), view(a, b), view(a), view(a, b)]).tolist() == [True, True]
    assert agreed([view(a, b), view(a), view(a), view(b)]).tolist() == [True, False]
    assert agreed([view(a), view(a), view(a, label=2), view(a, label=2)]).tolist() == [False]
    assert agreed([view(a), view(), view(), view()]).tolist() == [False]
    assert mirrored(view((10, 5, 30, 9)), 100).boxes_px.tolist() == [[70, 5, 90, 9]]


def test_checkpoints_of_one_training_are_averaged(tmp_path: Path) -> None:
    from tools.train import average as average_checkpoints

    first, second = after(0, tmp_path / "first"), after(2, tmp_path / "second")
    files = [str(tmp_path / name / LAST) for name in ("first", "second")]
    assert average_checkpoints.main([*files, "--share", "0.25", "--out", str(tmp_path / "mixed.pt")]) == 0
    mixed, _ = load_averaged(tmp_path / "mixed.pt")
    assert load_checkpoint(tmp_path / "mixed.pt")["average"]["updates"] == 2
    a, b = first.network.state_dict(), second.network.state_dict()
    for name, value in mixed.state_dict().items():
        expected = 0.75 * a[name] + 0.25 * b[name] if value.is_floating_point() else b[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="got different anchors"):
        average_checkpoints.averaged(a, {**b, "anchors_px": b["anchors_px"] + 1}, 0.5)
    with pytest.raises(ValueError, match="got two different networks"):
        average_checkpoints.averaged({}, b, 0.5)
