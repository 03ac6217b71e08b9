"""Networks of the literature: their sizes against the publications' numbers, their shapes, their gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks are written in PyTorch")

from torch import nn  # noqa: E402

from tools.architectures import darknet53, deeplabv3, mlcnn, mobilenet, resnet50, vgg19, yolov2  # noqa: E402
from tools.architectures.mobilenetv3 import MobileNetV3Small  # noqa: E402


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def on_paper(make) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return make()


def test_mobilenet_has_the_parameters_of_the_publication() -> None:
    network = on_paper(lambda: mobilenet.MobileNet(2))
    assert mobilenet.keras_count(network) == 1_093_218
    body = {id(p) for p in network.body_parameters()}
    assert sum(p.numel() for p in network.parameters() if id(p) not in body) == 263_682


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: resnet50.ResNet50(1000), 25_557_032),
        (lambda: vgg19.VGG19(1000), 143_667_240),
        (lambda: darknet53.DarkNet53(1000), 41_609_928),
        (lambda: nn.ModuleList([deeplabv3.Xception(), nn.Linear(2048, 1000)]), 22_855_952),
    ],
    ids=["resnet50", "vgg19", "darknet53", "xception"],
)
def test_parameters_with_a_thousand_outputs_are_those_published(make, expected: int) -> None:
    assert count(on_paper(make)) == expected


def test_mobilenetv3_small_without_its_second_head() -> None:
    network = on_paper(lambda: MobileNetV3Small(1000, 1))
    assert count(network) - count(network.subclasses) == 2_542_856


@pytest.mark.parametrize(
    ("make", "side", "expected"),
    [
        (lambda: mobilenet.MobileNet(3), 128, (2, 3)),
        (lambda: resnet50.ResNet50(5), 224, (2, 5)),
        (lambda: vgg19.VGG19(5), 224, (2, 5)),
        (lambda: vgg19.VGG19(5, side_px=96), 96, (2, 5)),
        (lambda: darknet53.DarkNet53(), 256, (2, 1000)),
        (lambda: yolov2.YOLOv2(), 128, (2, 40, 4, 4)),
        (lambda: deeplabv3.DeepLabV3(), 120, (2, 3, 120, 120)),
        (lambda: mlcnn.MLCNN(), 128, (2, 5)),
    ],
)
def test_shapes(make, side: int, expected: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert make().eval()(torch.zeros(2, 3, side, side)).shape == expected


def test_the_maps_are_as_large_as_published() -> None:
    with torch.device("meta"):
        assert yolov2.YOLOv2().backbone(torch.zeros(1, 3, 128, 128)).shape == (1, 512, 4, 4)
        assert mobilenet.MobileNet(2).features(torch.zeros(1, 3, 128, 128)).shape == (1, 512, 4, 4)
        assert resnet50.ResNet50(5).stages(torch.zeros(1, 64, 56, 56)).shape == (1, 2048, 7, 7)
        assert vgg19.VGG19(5).features(torch.zeros(1, 3, 224, 224)).shape == (1, 512, 7, 7)
        assert deeplabv3.Xception(16)(torch.zeros(1, 3, 256, 256)).shape == (1, 2048, 16, 16)
        assert deeplabv3.Xception(32)(torch.zeros(1, 3, 256, 256)).shape == (1, 2048, 8, 8)


@pytest.mark.parametrize(
    "network",
    [mobilenet.MobileNet(3), yolov2.YOLOv2(), mlcnn.MLCNN(choose=False)],
    ids=["mobilenet", "yolov2", "ml-cnn"],
)
def test_every_weight_of_the_small_networks_learns(network: nn.Module) -> None:
    torch.manual_seed(0)
    out = network.train()(torch.rand(2, 3, 64, 64))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_yolov2_transform_by_hand() -> None:
    anchors = torch.tensor([[20.0, 40.0], [60.0, 60.0]])
    raw = torch.zeros(1, 2 * 8, 4, 4)
    view = raw.view(2, 8, 4, 4)
    view[1, 2, 1, 3] = 0.5  # width of the second anchor in row 1, column 3
    view[1, 4, 1, 3] = 2.0
    view[1, 7, 1, 3] = 5.0
    boxes, objectness, classes = yolov2.transform(raw, anchors)
    assert boxes.shape == (1, 32, 4)
    place = 16 + 1 * 4 + 3
    half = 30 * torch.tensor(0.5).exp().item()
    assert boxes[0, place].tolist() == pytest.approx([112 - half, 48 - 30, 112 + half, 48 + 30], abs=1e-3)
    assert boxes[0, 0].tolist() == pytest.approx([16 - 10, 16 - 20, 16 + 10, 16 + 20])
    assert objectness[0, place].item() == pytest.approx(0.8808, abs=1e-4)
    assert classes[0, place].argmax() == 2
    assert classes[0].sum(1).tolist() == pytest.approx([1.0] * 32)


def test_the_group_chooses_the_network_or_weighs_both() -> None:
    torch.manual_seed(3)
    network = mlcnn.MLCNN().eval()
    for part in (network.gate, *network.groups):
        nn.init.normal_(part.classes.weight, 0, 5)
        nn.init.normal_(part.hidden.weight, 0, 1)
    images = torch.rand(12, 3, 64, 64)
    with torch.no_grad():
        gate = torch.softmax(network.gate(images), 1)
        chosen = network(images)
        network.choose = False
        weighed = network(images)
    assert mlcnn.CLASSES == ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
    torch.testing.assert_close(chosen.sum(1), torch.ones(12))
    torch.testing.assert_close(weighed.sum(1), torch.ones(12))
    mononuclear = [mlcnn.CLASSES.index(name) for name in mlcnn.GROUPS["mononuclear"]]
    torch.testing.assert_close(weighed[:, mononuclear].sum(1), gate[:, 0])
    expected = torch.where(gate[:, 0] >= 0.5, 1 - mlcnn.OTHER, mlcnn.OTHER)
    torch.testing.assert_close(chosen[:, mononuclear].sum(1), expected)
    network.choose = True
    for bias, share in ((5.0, 1 - mlcnn.OTHER), (-5.0, mlcnn.OTHER)):
        with torch.no_grad():
            network.gate.classes.weight.zero_()
            network.gate.classes.bias.copy_(torch.tensor([bias, -bias]))
            chosen, logits = network(images), network.groups[0](images)
        torch.testing.assert_close(chosen[:, mononuclear].sum(1), torch.full((12,), share))
        within = chosen[:, mononuclear] / share
        torch.testing.assert_close(within, torch.softmax(logits, 1), rtol=1e-4, atol=1e-6)
    assert [mlcnn.group_of(name) for name in mlcnn.CLASSES] == [1, 1, 0, 0, 1]


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="side_px: got 100, expected a multiple of 32"):
        vgg19.VGG19(5, side_px=100)
    with pytest.raises(ValueError, match="output_stride: got 4"):
        deeplabv3.Xception(4)
