"""From a run of the segmenter's training to its ONNX file and card, on a toy network; its evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network is written in PyTorch")
torch.set_num_threads(1)

from onnxruntime import InferenceSession  # noqa: E402

from engines.backends.tensorrt.operators import check_operators  # noqa: E402
from engines.backends.tensorrt.sizes import with_sizes  # noqa: E402
from engines.geometry import crop_squares  # noqa: E402
from engines.models.loading import load_segmenter  # noqa: E402
from engines.zoo.figures import MeasuredOn  # noqa: E402
from tests.cases import by_darkness  # noqa: E402
from tests.tools.train.test_segmenter import root, root_with_krd  # noqa: E402, F401
from tools.architectures.deeplabv3 import DeepLabV3  # noqa: E402
from tools.data.licences import data_licences  # noqa: E402
from tools.data.masks import cell_box, crop_mask  # noqa: E402
from tools.evaluate import segmenter as evaluate_segmenter  # noqa: E402
from tools.export.segmenter import Labelled, build_graph, data_of, load_network, main, train_commands  # noqa: E402
from tools.report.figures import figures_of  # noqa: E402
from tools.train import segmenter as train_segmenter  # noqa: E402

OPTIONS = "--input-px 32 --margin 1.3 --share 0.05 --decoder --rates 1 2 --augment --average --cosine --epochs 1"


@pytest.fixture
def run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.setenv("LEUKOSTREAM_DATA", str(root))
    train_segmenter.main(["--out", str(tmp_path / "run"), *OPTIONS.split()])
    return tmp_path / "run"


def test_the_file_says_what_the_network_says(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--name", "toy", "--out", str(tmp_path / "zoo")]) == 0
    segmenter = load_segmenter(str(tmp_path / "zoo" / "toy.onnx"))
    settings = json.loads((run / "settings.json").read_text())
    network = load_network(run, settings)
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255).argmax(1).numpy()
    assert (segmenter.segment(crops) == expected).mean() > 0.99  # weights are stored in half precision
    card = segmenter.card
    assert (card.task, card.input.height_px, card.input.crop_margin) == ("segmenter", 32, 1.3)
    assert card.training["share"] == 0.05
    assert card.training["decoder"] is True
    assert set(card.figures) == {
        (name, "", part)
        for name in ("wbc_masks", "wbc_masks/jtsc", "wbc_masks/cellavision")
        for part in ("validation", "test")
    }
    assert "--decoder" in card.build[0]
    assert "--rates 1 2 " in card.build[0]


def test_a_card_names_krd_where_it_taught(
    root_with_krd: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEUKOSTREAM_DATA", str(root_with_krd))
    train_segmenter.main(["--out", str(tmp_path / "run"), *OPTIONS.split(), "--sets", "wbc_masks,krd"])
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())["krd"]) == {
        *("cells", "global_accuracy", "cell_iou")
    }
    assert main([str(tmp_path / "run"), "--name", "toy", "--out", str(tmp_path / "zoo")]) == 0
    card = load_segmenter(str(tmp_path / "zoo" / "toy.onnx")).card
    assert card.licence == "GPL-3.0, as the data that trained it (wbc_masks)"
    assert list(card.training["data"]) == ["wbc_masks", "krd"]
    assert list(card.training["data_licences"]) == data_licences(["wbc_masks", "krd"])
    assert "krd" in card.training["split"]
    assert card.build[0].startswith(
        "python -m tools.train segmenter --out runs/deeplabv3-xception --sets wbc_masks,krd "
    )
    sets = ("wbc_masks/cellavision", "wbc_masks/jtsc", "wbc_masks", "krd")
    assert list(card.figures) == [(name, "", part) for part in ("validation", "test") for name in sets]
    krd = card.figures[MeasuredOn("krd", "", "test")]
    assert set(krd) == {"command", "cells", "global_accuracy", "cell_iou"}
    shown = list(figures_of(card, card.figures, len(card.classes)))
    assert [(figure.place, set(figure.values)) for figure in shown if figure.data_set == "krd"] == [
        ("home", {"cell_iou"})
    ] * 2
    assert all(set(figure.classes) <= {"background", "cytoplasm", "nucleus"} for figure in shown)


def test_data_of_earlier_runs_taught_too(run: Path, tmp_path: Path) -> None:
    settings = json.loads((run / "settings.json").read_text())
    assert data_of(settings) == ["wbc_masks"]
    assert "--sets" not in train_commands(settings, "out")[0]
    earlier = {key: value for key, value in settings.items() if key != "sets"}
    assert data_of(earlier) == ["wbc_masks"]  # a run from before the option
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "settings.json").write_text(json.dumps({**settings, "sets": "wbc_masks,krd"}))
    later = {**settings, "start_from": str(tmp_path / "before")}
    assert data_of(later) == ["wbc_masks", "krd"]
    first, second = train_commands(later, "out")
    assert "--sets wbc_masks,krd" in first
    assert "--sets" not in second


def test_mirrored_views_are_looked_at_together() -> None:
    torch.manual_seed(0)
    network = DeepLabV3(share=0.05, rates=(1, 2)).eval()
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        sum_of_two = network(x) + network(x.flip(3)).flip(3)
        assert torch.equal(Labelled(network)(x), network(x).argmax(1))
        assert (Labelled(network, 2)(x) == sum_of_two.argmax(1)).float().mean() > 0.999
        four = Labelled(network, 4)(x)
        assert (Labelled(network, 4)(x.flip(2)) == four.flip(1)).float().mean() > 0.999
    graph = build_graph(network, 32, 4)
    check_operators(with_sizes(graph, 1, None, None))
    crops = (x.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    (labels,) = InferenceSession(graph.SerializeToString()).run(None, {"images": crops.numpy()})
    with torch.no_grad():
        expected = Labelled(network, 4)(crops.permute(0, 3, 1, 2).float() / 255).numpy()
    assert (labels == expected).mean() > 0.99


def test_its_command_makes_the_same_settings(run: Path) -> None:
    settings = json.loads((run / "settings.json").read_text())
    (command,) = train_commands(settings, "runs/deeplabv3-xception")
    words = command.split()[4:]
    assert words[:2] == ["--out", "runs/deeplabv3-xception"]
    for flag in ("--decoder", "--augment", "--average", "--cosine"):
        assert flag in words
    assert "--decoder" not in train_commands({**settings, "decoder": False, "margin": None}, "out")[0]
    first, second = train_commands({**settings, "start_from": str(run)}, "out")
    assert first.split("--out ")[1].split()[0] == str(run)
    assert second.endswith(f"--start-from {run}")


def test_an_evaluation_of_what_draws_the_truth(root: Path, tmp_path: Path) -> None:  # noqa: F811
    drawn: list[np.ndarray] = []
    found = evaluate_segmenter.evaluate(by_darkness(64, nucleus_below=100), root, "test", 0, drawn)
    assert set(found) == {"jtsc", "cellavision", "all"}
    assert found["all"]["cells"] == 4
    assert len(drawn) == 4
    assert found["all"]["mean_iou"] > 0.9
    assert found["all"]["same_lobes"] == 1
    assert found["all"]["nucleus_area_error_median"] < 0.1
    assert 0.9 < found["all"]["mean_iou"] < found["all"]["mean_iou_but_edges"]
    assert 0.9 < found["all"]["mean_iou_at_input"] != found["all"]["mean_iou"]
    assert evaluate_segmenter.sheet(drawn).shape == (256, 8 * 128, 3)


def test_an_evaluation_of_whole_cells(root_with_krd: Path) -> None:  # noqa: F811
    drawn: list[np.ndarray] = []
    segmenter = by_darkness(64, nucleus_below=100)
    found = evaluate_segmenter.evaluate(segmenter, root_with_krd, "test", 0, drawn)
    assert list(found) == ["cellavision", "jtsc", "all", "krd"]
    assert set(found["krd"]) == {"cells", "global_accuracy", "cell_iou"}
    assert found["krd"]["cells"] == 3
    assert 0.95 < found["krd"]["cell_iou"] <= 1
    assert 0.95 < found["all"]["cell_iou"] <= 1
    assert found["all"]["cells"] == 4
    assert len(drawn) == 7
    assert not (drawn[-1][:128] == (0, 0, 255)).all(2).any()  # the mask draws no nucleus
    assert (drawn[-1][128:] == (0, 0, 255)).all(2).any()
    alone = evaluate_segmenter.evaluate(segmenter, root_with_krd, "test", 0, sets=["wbc_masks"])
    assert alone == {name: found[name] for name in ("cellavision", "jtsc", "all")}


def test_what_is_wrong_beside_a_border_is_an_edge() -> None:
    true = np.zeros((12, 12), np.uint8)
    true[3:9, 3:9] = 1
    wider, wider_by_two, nucleus = true.copy(), true.copy(), true.copy()
    wider[2:10, 2:10] = 1
    wider_by_two[1:11, 1:11] = 1
    nucleus[3, 3] = 2
    assert np.array_equal(evaluate_segmenter.but_edges(true, wider), wider)
    assert np.array_equal(evaluate_segmenter.but_edges(true, wider_by_two), wider)
    assert np.array_equal(evaluate_segmenter.but_edges(true, nucleus), true)  # no nucleus is near
    corner = np.zeros((4, 4), np.uint8)
    corner[:2, :2], corner[2, 2] = 1, 2
    assert evaluate_segmenter.resampled(corner, 2).tolist() == [[1, 0], [0, 0]]
    mostly = np.zeros((6, 6), np.uint8)
    mostly[0, :3], mostly[1, :2] = 2, 2  # five of the nine of a third's corner, and not the one in its middle
    mostly[1, 1], mostly[2, 0] = 0, 2
    assert evaluate_segmenter.resampled(mostly, 2).tolist() == [[2, 0], [0, 0]]
    assert evaluate_segmenter.resampled(corner, 8).tolist() == np.kron(corner, np.ones((2, 2), int)).tolist()


def test_masks_and_crops_lie_on_one_another() -> None:
    mask = np.zeros((70, 90), np.uint8)
    mask[20:50, 60:88] = 2
    box = cell_box(mask)
    assert box.tolist() == [[60, 20, 88, 50]]
    image = np.repeat(np.where(mask, 0, 255).astype(np.uint8)[..., None], 3, 2)
    crop = crop_squares(image, box, (48, 48), 1.6, 255)[0]
    cut = crop_mask(mask, box[0], 48, 1.6)
    assert ((crop[..., 0] < 128) == (cut == 2)).mean() > 0.99


def test_a_decoder_and_other_strides_keep_the_size() -> None:
    plus = {"decoder": True, "rates": (1, 2)}
    for options in ({"output_stride": 8}, plus, {**plus, "detail": True}):
        network = DeepLabV3(share=0.05, **options).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            assert network(torch.rand(1, 3, 64, 48)).shape == (1, 3, 64, 48)


def test_detail_is_of_stride_2() -> None:
    network = DeepLabV3(share=0.05, rates=(1, 2), decoder=True, detail=True).eval()
    seen: list[tuple[int, ...]] = []
    network.classes.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    with torch.no_grad():
        network(torch.rand(1, 3, 64, 48))
    assert seen == [(32, 24)]
    with pytest.raises(ValueError, match="detail: got no decoder"):
        DeepLabV3(share=0.05, detail=True)
