"""Faster R-CNN: its graph against its network, RoI align, the loss, training, export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network is written in PyTorch")
torch.set_num_threads(1)

from engines.backends.tensorrt.operators import check_operators  # noqa: E402
from engines.base import ModelFormatError  # noqa: E402
from engines.graphs.faster_rcnn_head import add_faster_rcnn_head  # noqa: E402
from engines.graphs.graph import add_uint8_input, fix_input_shape, is_compact  # noqa: E402
from engines.models.loading import load_detector  # noqa: E402
from tests.engines.networks import run  # noqa: E402
from tests.tools.detection_cases import disc_field, disc_maker  # noqa: E402
from tools.architectures.faster_rcnn import (  # noqa: E402
    CLASSES,
    FasterRCNN,
    anchor_boxes,
    applied,
    corrections_to,
    roi_align,
)
from tools.architectures.mobilenet import MobileNet  # noqa: E402
from tools.data.groups import GroupField  # noqa: E402
from tools.export.faster_rcnn import graph_of, load_network  # noqa: E402
from tools.export.faster_rcnn import main as export  # noqa: E402
from tools.train import faster_rcnn as train_faster_rcnn  # noqa: E402
from tools.train.faster_rcnn import FasterRCNNTask, TorchGroups, start_from  # noqa: E402
from tools.train.faster_rcnn_loss import FasterRCNNLoss, Sampling  # noqa: E402
from tools.train.loop import LAST, Loop, Schedule, save_checkpoint  # noqa: E402
from tools.train.tiles import TileSeries  # noqa: E402

ANCHORS = [[20.0, 20.0], [30.0, 26.0], [44.0, 44.0], [80.0, 70.0]]


def network(seed: int = 0, spread: float = 3.0) -> FasterRCNN:
    """Never trained, but sure of different things in different places."""
    torch.manual_seed(seed)
    made = FasterRCNN(anchors_px=ANCHORS)
    with torch.no_grad():
        for _ in range(4):
            made.body(torch.rand(4, 3, 64, 64))
        made.body.proposals.weight.normal_(0, spread)
        made.box_head.classes.weight.normal_(0, spread)
        made.box_head.boxes.weight.normal_(0, 0.5)
    return made.eval()


@pytest.mark.parametrize("backbone", ["mobilenet", "resnet50"])
def test_every_backbone_gives_a_map_of_stride_16(backbone: str) -> None:
    body = FasterRCNN(backbone=backbone, anchors_px=ANCHORS).body.eval()
    with torch.no_grad():
        features, raw = body(torch.rand(1, 3, 64, 96))
    assert features.shape == (1, 64, 4, 6)
    assert raw.shape == (1, 20, 4, 6)


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(ValueError, match="got 'vgg', expected one of mobilenet, resnet50"):
        FasterRCNN(backbone="vgg")


@pytest.fixture(scope="module")
def made() -> FasterRCNN:
    return network()


@pytest.fixture(scope="module")
def graph(made: FasterRCNN):
    return graph_of(made)


@pytest.mark.parametrize("fixed", [False, True])
def test_the_graph_finds_what_the_network_finds(made: FasterRCNN, graph, fixed: bool) -> None:
    assert is_compact(graph)
    images = np.random.default_rng(1).integers(0, 256, (2, 96, 64, 3), np.uint8)
    boxes, scores, classes, shares = run(fix_input_shape(graph, 2, 96, 64) if fixed else graph, {"images": images})
    with torch.no_grad():
        expected = [value.numpy() for value in made(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)]
    assert boxes.shape == (2, 96, 4)  # 6 x 4 places of 4 anchors, fewer than 128
    assert shares.shape == (2, 96, 2)
    np.testing.assert_allclose(scores, expected[1], atol=1e-4)
    assert (np.diff(scores) <= 0).all()
    for n in range(2):
        real = int((scores[n] > 0).sum())
        assert 10 < real < 96  # some proposals were suppressed, and fill the rows with 0
        # candidates of nearly the same score may change places
        distance = np.abs(boxes[n, :real, None] - expected[0][n, None, :real]).max(2)
        distance += np.abs(scores[n, :real, None] - expected[1][n, None, :real]) * 1e3
        partner = distance.argmin(1)
        assert distance.min(1).max() < 0.5
        assert (classes[n, :real] == expected[2][n][partner]).all()
        np.testing.assert_allclose(shares[n, :real], expected[3][n][partner], atol=1e-3)
    assert (boxes >= 0).all()
    assert (boxes <= (64, 96, 64, 96)).all()


def test_tensorrt_takes_every_operator(graph) -> None:
    fixed = fix_input_shape(graph, 1, 96, 128)
    check_operators(fixed)
    kinds = {node.op_type for node in fixed.graph.node}
    assert {"RoiAlign", "NonMaxSuppression", "TopK"} <= kinds
    assert not {"NonZero", "If", "Loop"} & kinds
    assert [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in fixed.graph.output] == [
        [1, 128, 4],
        [1, 128],
        [1, 128],
        [1, 128, 2],
    ]


def test_parts_that_are_none_of_it(made: FasterRCNN) -> None:
    from tools.graphs.conversion import to_onnx

    body = to_onnx(made.body, torch.zeros(1, 3, 64, 64), ("features", "raw"), {0: "N", 2: "H", 3: "W"})
    head = to_onnx(made.box_head, torch.zeros(2, 64, 7, 7), ("logits", "corrections"), {0: "M"})
    with pytest.raises(ModelFormatError, match=r"got input 'images' float \(\?,64,7,7\) and 2 outputs"):
        add_faster_rcnn_head(head, head, anchors_px=ANCHORS)
    images = add_uint8_input(body)
    with pytest.raises(ModelFormatError, match=r"anchors_px: got shape \(2,\)"):
        add_faster_rcnn_head(images, head, anchors_px=[1.0, 2.0])
    with pytest.raises(ModelFormatError, match=r"expected \(N, 3\*5, h, w\)"):
        add_faster_rcnn_head(images, head, anchors_px=ANCHORS[:3])
    with pytest.raises(ModelFormatError, match="box head: got outputs"):
        add_faster_rcnn_head(images, body, anchors_px=ANCHORS)


def test_roi_align_of_a_slope_is_the_slope_at_the_middle_of_each_bin() -> None:
    x = torch.arange(12.0).view(1, 1, 1, 12).expand(1, 1, 12, 12)
    rois = torch.tensor([[[32.0, 32, 144, 144], [48.0, 64, 104, 120]]])
    found = roi_align(torch.cat((x, x.transpose(2, 3)), 1), rois)
    assert found.shape == (2, 2, 7, 7)
    for roi, of_roi in zip(rois[0], found, strict=True):
        side = (roi[2] - roi[0]) / 7
        middles = (roi[0] + (torch.arange(7) + 0.5) * side) / 16 - 0.5
        torch.testing.assert_close(of_roi[0], middles.expand(7, 7))
        low = (roi[1] + (torch.arange(7) + 0.5) * side) / 16 - 0.5
        torch.testing.assert_close(of_roi[1], low[:, None].expand(7, 7))


def test_corrections_lead_from_a_box_to_its_target() -> None:
    boxes = torch.tensor([[10.0, 20, 50, 80], [0, 0, 32, 32]])
    targets = torch.tensor([[12.0, 10, 60, 90], [4, 8, 20, 60]])
    torch.testing.assert_close(applied(corrections_to(targets, boxes), boxes), targets)
    assert corrections_to(boxes, boxes).abs().max() == 0


def test_what_is_suppressed_is_no_proposal(made: FasterRCNN) -> None:
    raw = torch.full((1, 20, 2, 2), 0.0)
    raw.view(4, 5, 2, 2)[:, 0] = -9
    raw.view(4, 5, 2, 2)[2, 0, 0, 0] = 5  # 44x44 around (8, 8)
    raw.view(4, 5, 2, 2)[0, 0, 0, 0] = 4  # 20x20 around it
    rois, real = made.proposals(raw, (32, 32), before=2, after=2)
    assert real.tolist() == [[True, True]]
    assert rois[0, 0].tolist() == [0, 0, 30, 30]
    raw.view(4, 5, 2, 2)[0, 3:, 0, 0] = torch.log(torch.tensor(40 / 20)) / 0.2  # grown to 40x40
    assert made.proposals(raw, (32, 32), before=2, after=2)[1].tolist() == [[True, False]]


def test_what_is_not_known_is_no_background(made: FasterRCNN) -> None:
    loss = FasterRCNNLoss(made, Sampling(anchors=16, rois=8))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        features, raw = made.body(images)
        none = torch.zeros(0, 6)
        known = torch.ones(1, 2, 8, 8, dtype=torch.bool)
        _, terms = loss(features, raw, none, known, np.random.default_rng(0))
        assert terms["objectness"] > 0
        assert terms["classes"] > 0
        assert terms["boxes"] == terms["proposals"] == 0
        total, terms = loss(features, raw, none, ~known, np.random.default_rng(0))
        assert total.item() == 0
        cell = torch.tensor([[0, 1, 32.0, 32, 44, 44]])
        _, terms = loss(features, raw, cell, ~known, np.random.default_rng(0))
        assert min(terms.values()) > 0


def loop_of(out: Path) -> Loop[FasterRCNN]:
    torch.manual_seed(0)
    made = FasterRCNN(3, anchors_px=ANCHORS)
    task = FasterRCNNTask(made, TileSeries(disc_maker(64), 2, seed=3), 1e-3, Sampling(anchors=32, rois=8))
    return Loop(task, Schedule(50, 50, 100, clip=10.0, seed=3), out)


def test_training_lowers_the_loss_and_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loop_of(tmp_path)
    losses = [whole.take_step()["loss"] for _ in range(3)]
    first, second = loop_of(tmp_path), loop_of(tmp_path)
    first.take_step()
    first.save()
    second.resume(tmp_path / LAST)
    for _ in range(2):
        second.take_step()
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    tiles = TileSeries(disc_maker(64), 2, seed=1)[0]
    monkeypatch.setattr(TileSeries, "__getitem__", lambda series, number: tiles)
    again = loop_of(tmp_path)
    again.resume(tmp_path / LAST)
    for _ in range(20):
        last = again.take_step()["loss"]
    assert last < 0.75 * losses[0]


def test_the_command_leaves_a_checkpoint_and_the_figures_of_each_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    discs = [disc_field(seed) for seed in range(6)]
    fields = [
        GroupField(
            replace(
                item,
                name=f"{n}",
                source="pbc",
                boxes_px=item.boxes_px[:1],
                classes=np.array([n % 2]),
                complete=np.ones(2, bool),
            ),
            ("monocyte", "neutrophil")[n % 2],
        )
        for n, item in enumerate(discs)
    ]
    monkeypatch.setattr(train_faster_rcnn, "group_fields", lambda names: fields)
    monkeypatch.setattr(train_faster_rcnn, "build_groups", lambda: {f"{n}": [f"{n}"] for n in range(6)})
    given = ["--out", str(tmp_path), "--epoch-steps", "1", "--batch", "1", "--side-px", "64", "--anchors", "16"]
    given += ["--rois", "4", "--long-side-px", "96", "--sets", "pbc", "--repetitions", "2", "--device", "cpu"]
    assert train_faster_rcnn.main([*given, "--epochs", "1"]) == 0
    assert train_faster_rcnn.main([*given, "--epochs", "2", "--resume"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [one["measured_on"] for one in results["repetitions"]] == ["test", "test"]
    assert {one["figures"]["pbc"]["cells"] for one in results["repetitions"]} == {2}
    assert set(results["summary"]["pbc"]) == {"recall", "ap50", "group_accuracy"}
    for repetition in range(2):
        lines = (tmp_path / f"repetition-{repetition}" / "results.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2]
    network, description, step = load_network(tmp_path / "repetition-1" / "last.pt")
    assert step == 2
    assert description["settings"]["split"] == "published"
    assert sum(description["fields"].values()) == 4
    assert network.anchors_px.shape == (5, 2)


def test_the_body_of_a_classifier_begins_it(tmp_path: Path) -> None:
    torch.manual_seed(5)
    classifier = MobileNet(5)
    save_checkpoint(tmp_path / "best.pt", {"network": classifier.state_dict()})
    made = FasterRCNN()
    start_from(made, tmp_path / "best.pt")
    assert torch.equal(made.body.backbone.features[22][0].weight, classifier.features[22][0].weight)
    save_checkpoint(tmp_path / "other.pt", {"network": MobileNet(5, width=0.25).state_dict()})
    with pytest.raises(ValueError, match=r"got no features\.0\.0\.weight that fits"):
        start_from(made, tmp_path / "other.pt")


def test_a_checkpoint_becomes_a_file_that_the_stream_loads(made: FasterRCNN, tmp_path: Path) -> None:
    settings = {
        **{"rbc_diameter_px": [16.0, 64.0], "sets": "pbc,bccd", "long_side_px": 128, "split": "parts", "seed": 1},
        **{"batch": 8, "rate": 1e-3, "cosine": True, "side_px": 192, "anchors": 64, "rois": 32, "start_from": ""},
    }
    description = {"backbone": "mobilenet", "class_names": list(CLASSES), "settings": settings, "fields": {"pbc": 3}}
    save_checkpoint(tmp_path / "last.pt", {"network": made.state_dict(), "step": 5, "description": description})
    given = [str(tmp_path / "last.pt"), "--out", str(tmp_path), "--build", "python -m one", "python -m two"]
    assert export([*given, "--parts"]) == 0
    detector = load_detector(str(tmp_path / "faster-rcnn-two-level.onnx"), backend="onnxruntime", min_score=0.05)
    assert detector.card.class_names == ("mononuclear", "polymorphonuclear")
    assert detector.card.kinds == ("white", "white")
    assert detector.card.build == ("python -m one", "python -m two")
    picture = np.random.default_rng(2).integers(0, 256, (128, 128, 3), np.uint8)
    (found,) = detector.detect([picture])
    with_torch = TorchGroups(made, 128, least_score=0.05)(picture)
    np.testing.assert_allclose(found.scores[:5], with_torch.scores[:5], atol=0.02)  # stored in half precision
    np.testing.assert_allclose(found.boxes_px[0], with_torch.boxes_px[0], atol=2)
    assert found.class_scores is not None
    assert anchor_boxes(made.anchors_px, 1, 2)[1].tolist() == [14, -2, 34, 18]
