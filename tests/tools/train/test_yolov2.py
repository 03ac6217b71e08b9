"""YOLOv2: its head in the graph against its transform, its loss, its training and export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network is written in PyTorch")
torch.set_num_threads(1)

from engines.base import ModelFormatError  # noqa: E402
from engines.graphs.graph import add_uint8_input, fix_input_shape, is_compact  # noqa: E402
from engines.graphs.yolov2_head import add_yolov2_head  # noqa: E402
from engines.models.loading import load_detector  # noqa: E402
from tests.engines.networks import run  # noqa: E402
from tests.tools.detection_cases import disc_maker  # noqa: E402
from tools.architectures.yolov2 import CLASSES, YOLOv2, transform  # noqa: E402
from tools.graphs.conversion import to_onnx  # noqa: E402
from tools.train.checkpoints import graph_of  # noqa: E402
from tools.train.loop import LAST, Loop, Schedule, save_checkpoint  # noqa: E402
from tools.train.tiles import WARM_UP, TileSeries  # noqa: E402
from tools.train.yolov2 import task_of  # noqa: E402
from tools.train.yolov2_loss import YOLOv2Loss, box_iou, shape_iou  # noqa: E402

ANCHORS = [[20.0, 20.0], [30.0, 26.0], [44.0, 44.0], [80.0, 70.0]]


def network(seed: int = 0) -> YOLOv2:
    torch.manual_seed(seed)
    made = YOLOv2(anchors_px=ANCHORS)
    with torch.no_grad():
        for _ in range(4):
            made(torch.rand(4, 3, 64, 64))
        made.head[-1].weight.normal_(0, 0.05)
    return made.eval()


def raw_file(made: YOLOv2):
    return to_onnx(made, torch.zeros(1, 3, 64, 64), ("raw",), {0: "N", 2: "H", 3: "W"})


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("top_k", [7, 500])
def test_the_head_selects_what_the_transform_says(fixed: bool, top_k: int) -> None:
    made = network()
    graph = add_yolov2_head(add_uint8_input(raw_file(made)), anchors_px=ANCHORS, top_k=top_k, class_scores=True)
    assert is_compact(graph)
    if fixed:
        graph = fix_input_shape(graph, 2, 128, 96)
    images = np.random.default_rng(1).integers(0, 256, (2, 128, 96, 3), np.uint8)
    boxes, scores, classes, every = run(graph, {"images": images})
    with torch.no_grad():
        raw = made(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    expected_boxes, objectness, probabilities = (t.numpy() for t in transform(raw, made.anchors_px))
    expected = objectness * probabilities.max(2)
    k = min(top_k, 4 * 3 * 4)
    assert boxes.shape == (2, k, 4)
    assert every.shape == (2, k, 5)
    for n in range(2):
        order = np.argsort(-expected[n], kind="stable")[:k]
        np.testing.assert_allclose(scores[n], expected[n][order], atol=1e-5)
        np.testing.assert_allclose(boxes[n], expected_boxes[n][order], rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(every[n], probabilities[n][order], atol=1e-5)
        assert (classes[n] == probabilities[n][order].argmax(1)).all()


def test_maps_that_are_none_of_yolov2() -> None:
    model = add_uint8_input(raw_file(network()))
    with pytest.raises(ModelFormatError, match=r"anchors_px: got shape \(2,\)"):
        add_yolov2_head(model, anchors_px=[1.0, 2.0])
    with pytest.raises(ModelFormatError, match=r"expected \(N, 3\*\(5\+C\), h, w\)"):
        add_yolov2_head(model, anchors_px=ANCHORS[:3])


def test_overlaps() -> None:
    a = torch.tensor([[0.0, 0, 10, 10]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert box_iou(a, b)[0].tolist() == pytest.approx([1, 1 / 3, 0])
    assert shape_iou(torch.tensor([[10.0, 10]]), torch.tensor([[10.0, 10], [20, 10]]))[0].tolist() == [1, 0.5]


def perfect(label: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """A raw map that says exactly one object, and the object: 44x44 px at (80, 48), row 1, column 2."""
    raw = torch.zeros(1, 40, 4, 4)
    view = raw.view(4, 10, 4, 4)
    view[:, 4] = -12
    view[2, 4, 1, 2] = 12
    view[2, 5 + label, 1, 2] = 20
    return raw, torch.tensor([[0, 2, 80.0, 48.0, 44.0, 44.0]])


def test_what_is_right_costs_nothing_and_what_is_wrong_does() -> None:
    loss = YOLOv2Loss(torch.tensor(ANCHORS))
    known = torch.ones(1, 5, 16, 16, dtype=torch.bool)
    raw, targets = perfect()
    assert loss(raw, targets, known)[0].item() < 1e-3
    assert loss(perfect(label=1)[0], targets, known)[1]["classes"] > 10
    _, terms = loss(raw, targets[:0], known)
    assert terms["background"] == pytest.approx(1, abs=1e-3)
    _, terms = loss(raw, targets[:0], torch.zeros_like(known))
    assert terms["background"] == 0
    raw.view(4, 10, 4, 4)[2, 2, 1, 2] = 0.5
    assert loss(raw, targets, known)[1]["box"] == pytest.approx(0.25, abs=1e-3)


def test_a_candidate_over_an_object_is_no_background() -> None:
    loss = YOLOv2Loss(torch.tensor(ANCHORS))
    known = torch.ones(1, 5, 16, 16, dtype=torch.bool)
    raw, targets = perfect()
    before = loss(raw, targets, known)[1]["background"]
    raw.view(4, 10, 4, 4)[1, 4, 1, 2] = 12  # another anchor of the same cell: 30x26 in 44x44 overlaps by .40
    assert loss(raw, targets, known)[1]["background"] == pytest.approx(before + 1, abs=1e-3)
    raw.view(4, 10, 4, 4)[1, 2:4, 1, 2] = torch.log(torch.tensor([40 / 30, 40 / 26]))  # now by .83
    assert loss(raw, targets, known)[1]["background"] == pytest.approx(before, abs=1e-3)


def loop_of(out: Path, warmup_steps: int | None = None, steps: int = 400, precision: str = "fp32") -> Loop[YOLOv2]:
    torch.manual_seed(0)
    task = task_of(
        YOLOv2(3, anchors_px=ANCHORS), TileSeries(disc_maker(128), 2, seed=3), 1e-3, 0.9, precision=precision
    )
    return Loop(task, Schedule(steps, steps, warmup_steps, clip=10.0, seed=3), out)


def test_the_rate_stays_as_published_or_falls_over_the_run(tmp_path: Path) -> None:
    published, falling = loop_of(tmp_path), loop_of(tmp_path, WARM_UP, precision="bf16")
    falling.step = 250  # halfway down, after 100 steps of warm-up
    for one in (published, falling):
        one.take_step()
    assert published.optimizer.param_groups[0]["lr"] == 1e-3
    assert falling.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * (0.01 + 0.99 * 0.5))


def test_a_box_starts_as_its_anchor() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        raw = YOLOv2(anchors_px=ANCHORS)(torch.rand(2, 3, 64, 64)).view(2, 4, 10, 2, 2)
    assert raw[:, :, 2:4].abs().max() < 0.7  # a factor of two


def test_training_lowers_the_loss_and_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loop_of(tmp_path)
    for _ in range(4):
        whole.take_step()
    first, second = loop_of(tmp_path), loop_of(tmp_path)
    for _ in range(2):
        first.take_step()
    first.save()
    second.resume(tmp_path / LAST)
    for _ in range(2):
        second.take_step()
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    tiles = TileSeries(disc_maker(128), 2, seed=1)[0]
    monkeypatch.setattr(TileSeries, "__getitem__", lambda series, number: tiles)
    again = loop_of(tmp_path)
    again.resume(tmp_path / LAST)
    losses = [again.take_step()["loss"] for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_checkpoint_becomes_a_file_that_the_stream_loads(tmp_path: Path) -> None:
    from tools.export.leukocyte_detector import main as export

    description = {
        "architecture": "yolov2-onnx",
        "class_names": list(CLASSES),
        "settings": {"rbc_diameter_px": [18.0, 34.0], "seed": 1, "batch": 12, "side_px": 128},
        "shares": {"pbc": 1.0},
        "fields": {"pbc": 3},
    }
    state = {"network": network().state_dict(), "optimizer": {}, "step": 5, "description": description}
    save_checkpoint(tmp_path / "last.pt", state)
    given = [str(tmp_path / "last.pt"), "--name", "yolov2-onnx", "--out", str(tmp_path), "--long-side-px", "128"]
    assert export([*given, "--parts"]) == 0
    detector = load_detector(str(tmp_path / "yolov2-onnx.onnx"), backend="onnxruntime", min_score=0.0)
    assert detector.card.architecture == "yolov2-onnx"
    assert detector.card.class_names == CLASSES
    (found,) = detector.detect([np.full((224, 224, 3), 200, np.uint8)])
    assert len(found) > 0
    assert found.class_scores is not None
    assert graph_of(tmp_path / "last.pt")[2] == 5
