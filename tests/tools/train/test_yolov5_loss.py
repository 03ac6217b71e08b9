"""The loss: assignment, CIoU, and no evidence where nothing is labelled."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the loss is written in PyTorch")
torch.set_num_threads(1)  # idle threads of a small test spin on busy machines

from tools.train.yolov5_loss import DetectionLoss, LossWeights, assign, complete_iou  # noqa: E402

CLASSES = 3
SIDE = 64
ANCHORS = torch.tensor([[[8.0, 8], [10, 10], [12, 12]], [[16, 16], [20, 20], [24, 24]], [[32, 32], [40, 40], [48, 48]]])


def maps(value: float = 0.0) -> tuple[torch.Tensor, ...]:
    made = []
    for stride in (8, 16, 32):
        size = SIDE // stride
        made.append(torch.full((1, 3 * (5 + CLASSES), size, size), value, requires_grad=True))
    return tuple(made)


def known(*classes: int) -> torch.Tensor:
    mask = torch.zeros(1, CLASSES, SIDE // 8, SIDE // 8, dtype=torch.bool)
    mask[:, list(classes)] = True
    return mask


def by_kind(gradient: torch.Tensor) -> torch.Tensor:
    """Gradient (1, A*(5+C), h, w) as (5+C, rest)."""
    return gradient.view(3, 5 + CLASSES, -1).transpose(0, 1).flatten(1)


NOTHING = torch.zeros(0, 6)


def test_ciou_of_named_cases() -> None:
    same = torch.tensor([[5.0, 5, 4, 2]])
    assert complete_iou(same, same).item() == pytest.approx(1, abs=1e-5)
    shifted = torch.tensor([[7.0, 5, 4, 2]])  # IoU 1/3, centre distance 2, hull 6x2: 1/3 - 4/40
    assert complete_iou(same, shifted).item() == pytest.approx(1 / 3 - 0.1, abs=1e-5)


def test_ciou_takes_off_for_another_aspect() -> None:
    """Two boxes about one centre, 4 x 2 and 2 x 4: IoU 4 / 12, no distance; only the aspect tells how they differ."""
    lying, standing = torch.tensor([[5.0, 5, 4, 2]]), torch.tensor([[5.0, 5, 2, 4]])
    aspect = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
    alpha = aspect / (1 - 1 / 3 + aspect)
    assert complete_iou(lying, standing).item() == pytest.approx(1 / 3 - alpha * aspect, abs=1e-5)
    larger = torch.tensor([[5.0, 5, 8, 4]])  # of the same aspect: nothing is taken off the IoU of 1 / 4
    assert complete_iou(lying, larger).item() == pytest.approx(1 / 4, abs=1e-5)


def test_the_weight_of_the_aspect_is_no_way_to_a_better_loss() -> None:
    """Its gradient is that of the aspect alone: the weight is a constant (Zheng 2020, eq. 11)."""
    box = torch.tensor([[5.0, 5, 4, 2]], requires_grad=True)
    other = torch.tensor([[5.0, 5, 2, 4]])
    complete_iou(box, other).sum().backward()
    aspect = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
    alpha = aspect / (1 - 1 / 3 + aspect)
    slope = 8 / math.pi**2 * (math.atan(2) - math.atan(0.5)) * 2 / (4**2 + 2**2)  # of the aspect, by the width
    of_iou = -4 / 12**2 * 2  # a wider box adds 2 to the union of 12 and nothing to what is common
    assert box.grad is not None
    assert box.grad[0, 2].item() == pytest.approx(of_iou - alpha * slope, abs=1e-5)


def test_an_object_takes_its_cell_and_the_two_nearest() -> None:
    anchors = torch.tensor([[1.0, 1.0], [2.0, 2.0], [9.0, 9.0]])
    hit = assign(torch.tensor([[0.0, 2, 3.3, 4.8, 1.2, 1.2]]), anchors, 8, 8, 4.0)
    assert sorted(zip(hit.anchor.tolist(), hit.column.tolist(), hit.row.tolist(), strict=True)) == [
        (0, 2, 4), (0, 3, 4), (0, 3, 5), (1, 2, 4), (1, 3, 4), (1, 3, 5),
    ]  # fmt: skip
    assert torch.allclose(hit.box[:, :2] + torch.stack((hit.column, hit.row), 1), torch.tensor([3.3, 4.8]))


def test_no_neighbour_outside_the_map() -> None:
    hit = assign(torch.tensor([[0.0, 0, 0.2, 7.9, 1, 1]]), torch.tensor([[1.0, 1.0]]), 8, 8, 4.0)
    assert list(zip(hit.column.tolist(), hit.row.tolist(), strict=True)) == [(0, 7)]


@pytest.mark.parametrize(
    ("x", "y", "cells"),
    [
        pytest.param(0.8, 3.2, {(0, 3), (1, 3), (0, 2)}, id="first column, to its right"),
        pytest.param(0.2, 3.8, {(0, 3), (0, 4)}, id="first column, left of which is nothing"),
        pytest.param(1.0, 1.0, {(1, 1)}, id="on the corner of the second cell: too far from its neighbours"),
        pytest.param(1.2, 1.2, {(1, 1), (0, 1), (1, 0)}, id="second cell, the first one beside it"),
        pytest.param(6.9, 6.9, {(6, 6), (7, 6), (6, 7)}, id="last but one, the last one beside it"),
        pytest.param(7.2, 7.6, {(7, 7), (6, 7)}, id="last row, below which is nothing"),
        pytest.param(7.6, 3.2, {(7, 3), (7, 2)}, id="last column, right of which is nothing"),
    ],
)
def test_neighbours_at_the_edge_of_the_map_and_beside_it(x: float, y: float, cells: set[tuple[int, int]]) -> None:
    """No cell comes twice: one that lay outside and was moved in would be a second positive in the object's own."""
    hit = assign(torch.tensor([[0.0, 0, x, y, 1, 1]]), torch.tensor([[1.0, 1.0]]), 8, 8, 4.0)
    found = list(zip(hit.column.tolist(), hit.row.tolist(), strict=True))
    assert len(found) == len(cells)
    assert set(found) == cells


@pytest.mark.parametrize(("side", "taken"), [(39.9, True), (40.1, False), (2.6, True), (2.4, False)])
def test_an_anchor_takes_what_is_less_than_four_times_larger_or_smaller(side: float, taken: bool) -> None:
    hit = assign(torch.tensor([[0.0, 0, 3.5, 3.5, side, 10]]), torch.tensor([[10.0, 10.0]]), 8, 8, 4.0)
    assert bool(len(hit.label)) is taken


def test_levels_weigh_by_their_balance() -> None:
    """Logits of 0 and nothing to find: each level's mean is log 2, and its gradient is its balance's share."""
    weights = LossWeights(objectness=1.0, balance=(5.0, 0.5, 0.25))
    raw = maps()
    loss, parts = DetectionLoss(ANCHORS, CLASSES, weights)(raw, NOTHING, known(0, 1, 2))
    assert parts["objectness"] == pytest.approx(5.75 * math.log(2), rel=1e-5)
    loss.backward()
    pushed = [float(by_kind(m.grad)[4].sum()) for m in raw]
    assert pushed == pytest.approx([5.0 / 2, 0.5 / 2, 0.25 / 2], rel=1e-5)
    assert LossWeights().balance == (4.0, 1.0, 0.4)  # as published: small objects most


def test_background_is_pushed_down_where_everything_is_known() -> None:
    raw = maps()
    DetectionLoss(ANCHORS, CLASSES)(raw, NOTHING, known(0, 1, 2))[0].backward()
    for m in raw:
        kinds = by_kind(m.grad)
        assert (kinds[4] > 0).all()
        assert (kinds[[0, 1, 2, 3, 5, 6, 7]] == 0).all()


def test_nothing_known_teaches_nothing() -> None:
    raw = maps()
    DetectionLoss(ANCHORS, CLASSES)(raw, NOTHING, known())[0].backward()
    assert all((m.grad == 0).all() for m in raw)


def test_an_unlabelled_class_gets_no_gradient() -> None:
    raw = maps()
    DetectionLoss(ANCHORS, CLASSES)(raw, NOTHING, known(0, 1))[0].backward()
    for m in raw:
        kinds = by_kind(m.grad)
        assert (kinds[7] == 0).all()  # platelets may be there
        assert (kinds[5] > 0).all()
        assert (kinds[6] > 0).all()


def test_a_seen_unlabelled_class_keeps_its_objectness() -> None:
    """Where the network sees an unlabelled platelet, objectness is left (nearly) alone; a labelled class is
    pushed down."""
    gradients = {}
    for label in (0, 2):
        raw = maps()
        with torch.no_grad():
            for m in raw:
                kinds = m.view(3, 5 + CLASSES, *m.shape[2:])
                kinds[:, 5:] = -8
                kinds[:, 5 + label] = 8
        DetectionLoss(ANCHORS, CLASSES)(raw, NOTHING, known(0, 1))[0].backward()
        gradients[label] = float(by_kind(raw[0].grad)[4].sum())
    assert gradients[2] < 0.01 * gradients[0]


def test_a_labelled_object_counts_where_nothing_else_is_known() -> None:
    raw = maps()
    with torch.no_grad():
        for m in raw:
            m.view(3, 5 + CLASSES, -1)[:, 4] = -6
    target = torch.tensor([[0.0, 0, 30, 30, 16, 16]])
    DetectionLoss(ANCHORS, CLASSES)(raw, target, known())[0].backward()
    objectness = by_kind(raw[1].grad)[4]
    assert (objectness < 0).any()
    assert not (objectness > 0).any()


def test_the_loss_is_least_for_the_true_box() -> None:
    """Maps made to answer exactly the target give less loss than shifted ones."""
    target = torch.tensor([[0.0, 1, 28, 28, 20, 20]])
    losses = []
    for shift in (0.0, 2.0):
        raw = [m.detach() for m in maps(-6.0)]
        for level, stride in enumerate((8, 16, 32)):
            hit = assign(
                torch.cat((target[:, :2], target[:, 2:] / stride), 1),
                ANCHORS[level] / stride,
                SIDE // stride,
                SIDE // stride,
                4.0,
            )
            view = raw[level].view(1, 3, 5 + CLASSES, SIDE // stride, SIDE // stride)
            for n in range(len(hit.label)):
                xy = ((hit.box[n, :2] + shift / stride + 0.5) / 2).clamp(0.01, 0.99)
                wh = ((hit.box[n, 2:] / (ANCHORS[level][hit.anchor[n]] / stride)).sqrt() / 2).clamp(0.01, 0.99)
                view[0, hit.anchor[n], :4, hit.row[n], hit.column[n]] = torch.cat((xy, wh)).logit()
                view[0, hit.anchor[n], 4, hit.row[n], hit.column[n]] = 6.0
                view[0, hit.anchor[n], 6, hit.row[n], hit.column[n]] = 6.0
        losses.append(float(DetectionLoss(ANCHORS, CLASSES)(tuple(raw), target, known(0, 1, 2))[0]))
    assert losses[0] < 0.5 * losses[1]
