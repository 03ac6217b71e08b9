"""The network: shapes, size as published, any class list, exported graph equal to PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks are defined in PyTorch")
torch.set_num_threads(1)  # idle threads of a small test spin on busy machines

from tools.architectures.yolov5 import YOLOv5, yolov5  # noqa: E402


@pytest.mark.parametrize(("classes", "parameters"), [(80, 1_872_157), (3, 1_767_976)])
def test_size_is_the_published_one(classes: int, parameters: int) -> None:
    """1 872 157 is the count that YOLOv5n 6.x reports for COCO's 80 classes before its layers are fused."""
    assert sum(p.numel() for p in yolov5("n", classes).parameters()) == parameters


@pytest.mark.parametrize("classes", [1, 3, 12, 15])
def test_maps_have_a_box_an_objectness_and_the_classes_for_each_anchor(classes: int) -> None:
    network = yolov5("n", classes).eval()
    with torch.no_grad():
        maps = network(torch.zeros(2, 3, 96, 160))
    assert [tuple(m.shape) for m in maps] == [
        (2, 3 * (5 + classes), 12, 20),
        (2, 3 * (5 + classes), 6, 10),
        (2, 3 * (5 + classes), 3, 5),
    ]


def test_fresh_network_expects_few_objects() -> None:
    with torch.no_grad():
        maps = yolov5("n", 3).eval()(torch.rand(1, 3, 320, 320))
    scores = torch.cat([m.view(1, 3, 8, -1)[:, :, 4].flatten() for m in maps]).sigmoid()
    assert float(scores.mean()) < 0.02


@pytest.mark.parametrize("size", ["n", "s"])
def test_larger_sizes_are_wider(size: str) -> None:
    stem = yolov5(size, 3).stem[0]
    assert stem.out_channels == {"n": 16, "s": 32}[size]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="classes: got 0"):
        YOLOv5(0)
    with pytest.raises(ValueError, match="anchors_px: got shape"):
        YOLOv5(3, anchors_px=[[[1.0, 2.0]]])
    with pytest.raises(ValueError, match="expected one of n, s, m, l"):
        yolov5("nano", 3)


def test_anchors_travel_with_the_weights() -> None:
    anchors = np.arange(18, dtype=float).reshape(3, 3, 2) + 4
    source = yolov5("n", 3, anchors_px=anchors.tolist())
    target = yolov5("n", 3)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.anchors_px, torch.tensor(anchors, dtype=torch.float32))


def test_onnx_equals_torch(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from tools.graphs.detector import export_raw

    torch.manual_seed(0)
    network = yolov5("n", 3).eval()
    path = tmp_path / "raw.onnx"
    path.write_bytes(export_raw(network).SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["p3", "p4", "p5"]
    for height, width in ((64, 96), (128, 64)):
        images = torch.rand(2, 3, height, width)
        with torch.no_grad():
            expected = network(images)
        got = session.run(None, {"images": images.numpy()})
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-3, atol=1e-4)
