from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from engines.base import Classifications, Detections  # noqa: E402
from engines.models.loading import load_classifier  # noqa: E402
from engines.zoo.toml import toml, toml_value  # noqa: E402
from tests.tools.cases import make_data, smear  # noqa: E402
from tools.architectures.mobilenetv3 import MobileNetV3Small, density, mix_styles, standardised  # noqa: E402
from tools.data import (  # noqa: E402  # noqa: E402
    CELL_CLASSES,
    SUBCLASSES,
    CellPicture,
    appearance,
    augment,
    crops,
    load_splits,
    read_cells,
    unique,
)
from tools.evaluate import eight_types as evaluate_classifier  # noqa: E402
from tools.export import eight_types as export_classifier  # noqa: E402
from tools.export import novelty  # noqa: E402
from tools.export.crops import CLASS_OFFSETS  # noqa: E402
from tools.train import eight_types as train_classifier  # noqa: E402
from tools.train import loop  # noqa: E402
from tools.train.classifier import ATTRIBUTE_SIZES, attribute_loss  # noqa: E402
from tools.train.eight_types import (  # noqa: E402
    EightTypesTask,
    Looks,
    Plan,
    cell_loss,
    load_network,
    sampling_weights,
    schedule_of,
)
from tools.train.loop import LAST, RESULTS, Loop  # noqa: E402

PLAN = Plan(epochs=3, samples=16, batch=8, input_px=48, early_px=32, early_share=0.4, seed=3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def stored_cells(n: int = 12) -> crops.StoredCells:
    """Cells of pbc and chula_wbc; every third one is no training cell."""
    cells = [
        CellPicture(
            dataset="pbc" if i % 2 else "chula_wbc",
            key=f"{i}.jpg",
            path=Path(f"{i}.jpg"),
            width_px=224,
            height_px=224,
            box_px=(80, 80, 150, 140),
            cell_class=CELL_CLASSES[i % 8],
        )
        for i in range(n)
    ]
    classes = np.arange(n) % 8
    return crops.StoredCells(
        squares=np.stack([smear(i, 224, 224) for i in range(n)]),
        boxes=np.tile(np.float32([80, 80, 150, 140]), (n, 1)),
        classes=classes,
        subclasses=np.where(classes == 6, 1, np.where(classes == 3, 3, -1)),
        cells=cells,
        parts=["validation" if i % 3 == 0 else "train" for i in range(n)],
        attributes=np.where((np.arange(n) % 2 == 1)[:, None], np.arange(11) % 2, -1),
    )


def loop_of(out: Path, plan: Plan = PLAN, *, measured: bool = True, **options: Any) -> Loop[MobileNetV3Small]:
    stored = stored_cells()
    task = EightTypesTask(plan, stored, looks(stored) if measured else {}, **options)
    return Loop(task, schedule_of(plan), out, say=lambda line: None)


def after_an_epoch(out: Path, plan: Plan = PLAN, **options: Any) -> Loop[MobileNetV3Small]:
    loop = loop_of(out, plan, measured=False, **options)
    for _ in range(plan.epoch_steps):
        loop.take_step()
    loop.save()
    return loop


def looks(stored: crops.StoredCells) -> dict[str, Looks]:
    inside = stored.select("validation")
    small = stored.squares[inside][:, :48, :48]
    return {"pbc": Looks(small, stored.classes[inside], stored.subclasses[inside])}


def test_the_network_has_the_size_of_the_published_one() -> None:
    network = MobileNetV3Small(1000, 1)
    published = 2_542_856  # MobileNetV3-Small 1.0 with 1000 classes: "2.5 M" in table 3
    assert sum(p.numel() for p in network.parameters()) - (1024 + 1) == published
    out, _ = network(torch.rand(2, 3, 64, 96))
    assert out.shape == (2, 1000)


def test_standardised_cancels_brightness_contrast_and_white_balance() -> None:
    x = torch.rand(2, 3, 20, 20)
    changed = 0.5 * x + torch.tensor([0.1, 0.3, 0.2])[:, None, None]
    assert torch.allclose(standardised(x), standardised(changed), atol=0.05)


def test_standardised_density_cancels_a_coloured_lamp_and_gamma() -> None:
    x = 0.2 + 0.7 * torch.rand(2, 3, 20, 20)
    changed = (x * torch.tensor([0.9, 0.6, 0.8])[:, None, None]) ** 1.2
    assert torch.allclose(standardised(density(x)), standardised(density(changed)), atol=0.05)
    assert not torch.allclose(standardised(x), standardised(changed), atol=0.05)


def test_mixed_styles_lie_between_those_of_two_pictures_and_keep_the_shapes() -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 4, 10, 10) * torch.rand(8, 4, 1, 1) + torch.rand(8, 4, 1, 1)
    mixed = mix_styles(x)
    means = x.mean((2, 3))
    assert (mixed.mean((2, 3)) >= means.min(0).values - 1e-5).all()
    assert (mixed.mean((2, 3)) <= means.max(0).values + 1e-5).all()
    assert not torch.allclose(mixed, x, atol=0.01)
    for a, b in zip(x.flatten(0, 1), mixed.flatten(0, 1), strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.999


def test_styles_are_mixed_in_training_only() -> None:
    network = MobileNetV3Small(8, 5, dropout=0.0, style_share=1.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    x = torch.rand(4, 3, 32, 32)
    assert torch.equal(network.eval()(x)[0], network(x)[0])
    network.training = True
    assert not torch.equal(network(x)[0], network(x)[0])


def test_average_follows_with_growing_decay() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 0.0)
    average = loop.MovingAverage(network, decay=0.5)
    torch.nn.init.constant_(network.weight, 1.0)
    average.update(network)
    assert average.network.weight.item() == pytest.approx(1 - 2 / 11)
    for _ in range(50):
        average.update(network)
    before = average.network.weight.item()
    torch.nn.init.constant_(network.weight, 3.0)
    average.update(network)
    assert average.network.weight.item() == pytest.approx(0.5 * (before + 3))


def test_one_cycle_warms_up_then_falls_to_its_end() -> None:
    factors = [loop.one_cycle(s, 100, 10) for s in range(100)]
    assert factors[9] == 1.0
    assert factors[:10] == sorted(factors[:10])
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert loop.one_cycle(100, 100, 10) == pytest.approx(0.01)


def test_sampling_gives_sets_their_share_and_rare_classes_and_slides_their_root() -> None:
    datasets = np.array(["pbc"] * 100 + ["chula_wbc"] * 10 + ["bccd_crops"] * 5 + ["all_idb2"] * 2)
    classes = np.array([0] * 81 + [1] * 19 + [2] * 10 + [0] * 7)
    slides = np.array([""] * 100 + ["B-30"] * 9 + ["B-42"] + [""] * 7)
    weights = sampling_weights(datasets, classes, slides)
    shares = train_classifier.SET_SHARES
    assert weights[:100].sum() == pytest.approx(shares["pbc"] / (shares["pbc"] + shares["chula_wbc"]))
    assert weights[:81].sum() / weights[81:100].sum() == pytest.approx((81 / 19) ** 0.5)
    assert weights[100:109].sum() / weights[109] == pytest.approx(3)
    assert weights[110:].sum() == 0  # the crops of bccd are its cells once more; all_idb2 trains nothing
    with pytest.raises(ValueError, match="got none of pbc"):
        sampling_weights(np.array(["all_idb2"]), np.array([0]), np.array([""]))


def test_unknown_subclass_adds_nothing_to_the_loss() -> None:
    plan = dataclasses.replace(PLAN, smoothing=0.0)
    classes = torch.tensor([6, 6])
    logits, sub = torch.zeros(2, 8), torch.zeros(2, 5, requires_grad=True)
    base = cell_loss(logits, sub, classes, torch.tensor([-1, -1]), plan)
    assert base.item() == pytest.approx(np.log(8))
    loss = cell_loss(logits, sub, classes, torch.tensor([0, -1]), plan)
    assert loss.item() == pytest.approx(np.log(8) + plan.subclass_weight * np.log(2) / 2)
    loss.backward()
    assert sub.grad is not None
    assert sub.grad[1].abs().sum() == 0
    assert sub.grad[0, 2:].abs().sum() == 0  # only the children of its own parent compete


def test_attributes_count_where_somebody_looked() -> None:
    sizes = ATTRIBUTE_SIZES
    logits = torch.zeros(2, sum(sizes), requires_grad=True)
    known = torch.zeros(11, dtype=torch.long)
    loss = attribute_loss(logits, torch.stack([known, known - 1]))
    assert loss.item() == pytest.approx(np.log(sizes).sum() / 22, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[0] != 0).all()
    assert (logits.grad[1] == 0).all()
    assert attribute_loss(logits, torch.full((2, 11), -1)).item() == 0


def test_a_run_may_start_from_another_and_get_the_head_for_attributes(tmp_path: Path) -> None:
    first = after_an_epoch(tmp_path / "first")
    plan = dataclasses.replace(PLAN, attribute_weight=0.2, rate=1e-3)
    second = loop_of(tmp_path / "second", plan, measured=False, start=tmp_path / "first" / LAST)
    a, b = first.network.state_dict(), second.task.network.state_dict()
    assert set(b) - set(a) == {"attributes.weight", "attributes.bias"}
    assert all(torch.equal(a[name], b[name]) for name in a)
    before = b["attributes.weight"].clone()
    second.take_step()
    second.save()
    assert not torch.equal(before, second.task.network.state_dict()["attributes.weight"])
    with pytest.raises(ValueError, match="expected those of the same network"):
        loop_of(tmp_path / "third", start=tmp_path / "second" / LAST)


def test_attributes_are_read_from_the_table(tmp_path: Path) -> None:
    (tmp_path / "pbc").mkdir()
    names = list(crops.ATTRIBUTES)
    values = [crops.ATTRIBUTES[n][-1] for n in names]
    table = [["file", *names], ["a.jpg", *values], ["b.jpg", *[""] * 11]]
    (tmp_path / "pbc/labels.csv").write_text("\n".join(",".join(row) for row in table) + "\n")
    cells = [dataclasses.replace(stored_cells(1).cells[0], key=f"pbc/images/{k}.jpg") for k in "abc"]
    found = crops.read_attributes(tmp_path, cells)
    assert found[0].tolist() == [n - 1 for n in ATTRIBUTE_SIZES]
    assert (found[1:] == -1).all()


@pytest.mark.parametrize("seed", range(6))
def test_crops_show_the_cell(seed: int) -> None:
    square = np.full((224, 224, 3), 200, np.uint8)
    square[90:130, 100:140] = (0, 0, 255)
    rng = np.random.default_rng(seed)
    how = augment.Augmentation(coarse_share=0, whole_share=0, wide_share=0)
    cut, factor = augment.crop(square, np.float32([100, 90, 140, 130]), 96, rng, how)
    assert cut.shape == (96, 96, 3)
    assert 1.3 * 0.8 <= factor <= 1.3 * 1.3
    red = float((cut[:, :, 1] < 100).mean())
    assert red == pytest.approx(1 / factor**2, rel=0.35)  # shifted a little, stretched a little


def test_relighting_keeps_shape_and_range_and_strength_nothing_changes_nothing() -> None:
    images = torch.from_numpy(np.stack([smear(s, 32, 24) for s in range(5)]))
    out = augment.relight(images, np.random.default_rng(0), augment.Augmentation())
    assert out.shape == (5, 3, 24, 32)
    assert out.min() >= 0
    assert out.max() <= 1
    off = augment.Augmentation(
        stain=0,
        mixing=0,
        gamma=0,
        white_balance=0,
        brightness=0,
        gradient=0,
        hue_rad=0,
        saturation=(1, 1),
        haze_share=0,
        noise=0,
    )
    same = augment.relight(images, np.random.default_rng(0), off)
    assert torch.allclose(same, (images.permute(0, 3, 1, 2).float() + 1) / 256, atol=1e-4)


def test_haze_takes_contrast_and_leaves_the_mean() -> None:
    images = torch.from_numpy(np.stack([smear(s, 48, 48) for s in range(12)]))
    calm = dict.fromkeys(("stain", "mixing", "gamma", "white_balance", "brightness", "gradient", "hue_rad", "noise"), 0)
    clear, hazy = (
        augment.relight(
            images, np.random.default_rng(0), augment.Augmentation(**calm, saturation=(1, 1), haze_share=share)
        )
        for share in (0.0, 1.0)
    )
    assert torch.allclose(clear.mean((2, 3)), hazy.mean((2, 3)), atol=1e-3)
    ratios = (hazy.std((1, 2, 3)) / clear.std((1, 2, 3))).numpy()
    assert 0.2 < ratios.min() < 0.5
    assert ratios.max() < 1.01


@pytest.mark.parametrize("seed", range(8))
def test_blur_fringe_and_sharpening_leave_even_places_alone_and_light_where_it_was(seed: int) -> None:
    rng = np.random.default_rng(seed)
    even = np.full((64, 64, 3), (90, 140, 200), np.uint8)
    assert np.abs(augment.blurred(even, 1.0, rng).astype(int) - even).max() <= 1
    np.testing.assert_array_equal(augment.fringed(even, 1.0, rng), even)
    point = np.zeros((65, 65, 3), np.uint8)
    point[30:35, 30:35] = 250
    soft = augment.blurred(point, 1.0, rng).astype(float)
    assert soft.sum() == pytest.approx(point.sum(), rel=0.1)
    middle = (soft.sum(2) * np.arange(65)).sum(1).sum() / soft.sum()
    assert middle == pytest.approx(32, abs=0.6)


def test_a_cell_takes_on_the_colours_of_another_laboratory() -> None:
    rng = np.random.default_rng(0)
    here, there = (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) * 0.1 + m for m in (0.3, 0.8))
    covariances = np.cov(here.T), np.cov(there.T)
    matrix = appearance.colour_map(*covariances)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    np.testing.assert_allclose(np.cov((here @ matrix).T), covariances[1], atol=2e-3)
    looks = appearance.Appearances(
        {"a": here.mean(0)[None], "b": there.mean(0)[None]}, {"a": covariances[0][None], "b": covariances[1][None]}
    )
    matrices, offsets = looks.maps(["a"] * 60, rng)
    moved = np.array([here.mean(0) @ m + o for m, o in zip(matrices, offsets, strict=True)])
    reach = (moved - here.mean(0)) @ (there.mean(0) - here.mean(0)) / np.sum((there.mean(0) - here.mean(0)) ** 2)
    assert reach.min() == pytest.approx(0, abs=1e-6)  # its own laboratory was drawn
    assert 0.3 < reach.max() <= 1 + 1e-6
    assert 10 < (reach > 0.29).sum() < 50


def test_a_run_may_start_from_a_graph_that_ships(checkpoint: Path, tmp_path: Path) -> None:
    graph, plan = export_classifier.build_graph(checkpoint, export_classifier.Fitted())
    file = tmp_path / "shipped.onnx"
    file.write_bytes(graph.SerializeToString())
    network = EightTypesTask(plan, stored_cells(), {}, start=file).network.eval()
    before, _, _ = load_network(checkpoint)
    x = torch.rand(4, 3, plan.input_px, plan.input_px)
    with torch.no_grad():
        for now, then in zip(network(x), before(x), strict=True):
            assert torch.allclose(now, then, atol=1e-4)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert any((norm.running_var - 1).abs().max() > 0.1 for norm in norms)  # of what it sees, not of nothing


def test_appearances_are_gathered_from_typed_and_untyped_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_data(tmp_path / "data")
    monkeypatch.setenv("LEUKOSTREAM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    looks = train_classifier.laboratory_appearances(stored_cells())
    assert {name: len(means) for name, means in looks.means.items()} == {"chula_wbc": 4, "pbc": 4}
    x = augment.make_batch(
        stored_cells().squares,
        stored_cells().boxes,
        np.arange(4),
        32,
        np.random.default_rng(0),
        augment.Augmentation(appearance_share=1.0),
        augment.Lending(looks, ["pbc"] * 4, np.ones(4)),
    )
    assert x.shape == (4, 3, 32, 32)
    assert torch.isfinite(x).all()


def test_looks_at_one_cell_are_found_by_place_and_fused(tmp_path: Path) -> None:
    (tmp_path / "chula_wbc").mkdir()
    places = {f"S_{n}.jpg": {"island": 0 if n < 4 else 1, "x_px": x, "y_px": 0} for n, x in ((1, 0), (2, 90), (4, 0))}
    (tmp_path / unique.UNIQUE_CELLS).write_text(json.dumps({"S": {"positions": places}}))
    cells = [
        CellPicture("chula_wbc", name, Path(name), 288, 180, (x, 60, x + 40, 100), "basophil", slide="S")
        for name, x in (("S_1.jpg", 100.0), ("S_2.jpg", 12.0), ("S_2.jpg", 200.0), ("S_4.jpg", 100.0), ("S_9.jpg", 0.2))
    ]
    groups = unique.looks_of_cells(cells, tmp_path)
    assert groups == [[0, 1], [2], [3], [4]]  # one cell in two frames, its neighbour, another island, a lone frame
    p = np.full((5, 8), 0.02, np.float32)
    p[0, 0], p[1, 0], p[1, 1] = 0.86, 0.1, 0.78
    p[2:, 6] = 0.86
    families = np.float32([[0.5, 0.5, 0.2, 0.3, 0.5]] * 5)
    names = crops.SUBCLASS_NAMES
    looks = Classifications(p, CELL_CLASSES, families, names, tuple(SUBCLASSES[n] for n in names))
    cut = unique.fused(looks, [dataclasses.replace(cells[0], box_px=(0.0, 60.0, 40.0, 100.0)), *cells[1:]], groups)
    whole = unique.fused(looks, cells, groups)
    assert whole.probabilities.argmax(1).tolist() == [0, 6, 6, 6]
    assert cut.probabilities.argmax(1).tolist() == [1, 6, 6, 6]  # the look at the cut cell says less
    np.testing.assert_allclose(whole.probabilities.sum(1), 1, atol=1e-5)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = loop_of(tmp_path / "whole")
    whole.run()
    part = loop_of(tmp_path / "part")
    for _ in range(PLAN.epoch_steps - 1):  # not at an epoch's end
        part.take_step()
    part.save()
    resumed = loop_of(tmp_path / "part")
    resumed.resume(tmp_path / "part" / LAST)
    assert resumed.step == 1
    resumed.run()
    for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)
    lines = [json.loads(line) for line in (tmp_path / "part" / RESULTS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[-1]["results"]["pbc"]["n"] == 4
    assert (tmp_path / "part" / "best.pt").exists()


def test_resuming_another_plan_is_refused(tmp_path: Path) -> None:
    loop_of(tmp_path).save()
    with pytest.raises(ValueError, match=r"got \{'rate': 1.0\}, expected those of .*last\.pt"):
        loop_of(tmp_path, dataclasses.replace(PLAN, rate=1.0)).resume(tmp_path / LAST)
    with pytest.raises(FileNotFoundError, match="without --resume"):
        loop_of(tmp_path).resume(tmp_path / "other" / LAST)


def test_early_epochs_see_smaller_crops(tmp_path: Path) -> None:
    task = EightTypesTask(PLAN, stored_cells(), {})
    sides: list[int] = []
    describe = task.network.describe
    task.network.describe = lambda x: sides.append(x.shape[3]) or describe(x)  # type: ignore[method-assign, func-returns-value]
    for step in range(schedule_of(PLAN).steps):
        task.loss(step, np.random.default_rng(step))
    assert sides == [32] * 4 + [48] * 2  # two of three epochs begin before .4 of them are over


def test_training_steps_reduce_the_loss(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, epochs=1, samples=480, early_share=0.0, warmup_epochs=0.1)
    loop = loop_of(tmp_path, plan, measured=False)
    losses = [loop.take_step()["loss"] for _ in range(loop.schedule.steps)]
    assert len(losses) == 60
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    loop_of(folder).run()
    return folder / LAST


def test_the_exported_graph_says_what_the_network_says(checkpoint: Path, tmp_path: Path) -> None:
    graph, plan = export_classifier.build_graph(checkpoint, export_classifier.Fitted(1.7, 0.6))
    told = {"temperature": 1.7}
    values = export_classifier.values_of("tiny", plan, graph.SerializeToString(), 0.4, told, novel=False)
    (tmp_path / "tiny.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "tiny.toml").write_text(toml(values))
    classifier = load_classifier(str(tmp_path / "tiny.onnx"))
    images = np.stack([smear(s, 48, 48) for s in range(5)])
    found = classifier.classify_batch(images)
    network, _, _ = load_network(checkpoint)
    with torch.no_grad():
        classes, subclasses = network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    for name, offset in CLASS_OFFSETS.items():
        classes[:, CELL_CLASSES.index(name)] += offset
    np.testing.assert_allclose(found.probabilities, torch.softmax(classes / 1.7, 1).numpy(), atol=1e-5)
    families = [torch.softmax(subclasses[:, s] / 0.6, 1) for s in (slice(0, 2), slice(2, 5))]
    np.testing.assert_allclose(found.subclass_probabilities, torch.cat(families, 1).numpy(), atol=1e-5)
    assert classifier.threshold == 0.4
    assert classifier.class_names == CELL_CLASSES
    assert not any("running" in t.name for t in graph.graph.initializer)
    assert all(np.isfinite(numpy_helper.to_array(t)).all() for t in graph.graph.initializer)


def test_attributes_and_novelty_leave_the_graph_too(checkpoint: Path, tmp_path: Path) -> None:
    loop_of(tmp_path, dataclasses.replace(PLAN, attribute_weight=0.3, epochs=1), measured=False, start=checkpoint).run()
    network, _, _ = load_network(tmp_path / "last.pt")
    images = np.stack([smear(s, 48, 48) for s in range(5)])
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        hidden, means = network.describe_at(x)
        logits = network.attributes(hidden)
    features = torch.cat(means, 1).numpy()
    gaussians = novelty.fit(features, np.array([0, 0, 1, 1, 1]), np.ones(5))
    calibration = novelty.Calibration(0.3, 2.0)
    temperatures = tuple(1 + i / 10 for i in range(11))
    fitted = export_classifier.Fitted(attribute_temperatures=temperatures, novelty=(gaussians, calibration))
    graph, plan = export_classifier.build_graph(tmp_path / "last.pt", fitted)
    values = export_classifier.values_of("tiny", plan, graph.SerializeToString(), 0.4, {}, novel=True)
    (tmp_path / "tiny.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "tiny.toml").write_text(toml(values))
    classifier = load_classifier(str(tmp_path / "tiny.onnx"))
    found = classifier.classify_batch(images)
    assert {a.name: a.values for a in found.attributes} == crops.ATTRIBUTES
    assert "immature granulocyte" not in classifier.card.attributes_of
    parts = logits.split(ATTRIBUTE_SIZES, 1)
    expected = [torch.softmax(p / t, 1) for p, t in zip(parts, temperatures, strict=True)]
    np.testing.assert_allclose(found.attribute_probabilities, torch.cat(expected, 1).numpy(), atol=1e-5)
    logs = np.log(gaussians.distances(features))
    np.testing.assert_allclose(found.novelty, 1 / (1 + np.exp(-2 * (logs - 0.3))), atol=1e-4)


def test_export_writes_a_card_with_measured_figures(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path / "data")
    unseen = tmp_path / "data/wbc_masks"
    shutil.copytree(unseen / "jtsc", unseen / "cellavision")
    with open(unseen / "labels.csv", "a") as labels:
        labels.write("cellavision/001.png,cellavision/001_mask.png,lymphocyte\n")
    monkeypatch.setenv("LEUKOSTREAM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = [str(checkpoint), "--name", "tiny", "--out", str(tmp_path / "zoo"), "--parts", "validation", "holdout"]
    arguments += ["--earlier", str(checkpoint), "--cells", str(tmp_path / "cells")]
    arguments += ["--left-out", str(checkpoint), "wbc_masks/cellavision"]
    export_classifier.main(arguments)
    model = evaluate_classifier.Model(str(tmp_path / "zoo/tiny.onnx"))
    card = model.classifier.card
    assert card.figures["chula_wbc", "", "validation"]["cells"] == 1
    assert card.figures["chula_wbc", "", "holdout"]["cells"] == 1
    left_out = card.figures["wbc_masks/cellavision", "left out", "validation"]
    assert left_out["cells"] == 1
    assert left_out["command"].endswith("--left-out wbc_masks/cellavision")
    assert set(card.figures["bccd_crops", "whole", "validation"]) >= {"accuracy", "accuracy_low", "command"}
    assert card.training["epoch_of_weights"] == 3
    options = "--epochs 3 --samples 16 --batch 8 --input-px 48 --early-px 32 --seed 3"
    start = f"python -m tools.train eight-types --out runs/classifier {options}"
    assert card.training["command"] == f"{start} --start runs/1/last.pt"
    assert card.training["earlier_runs"] == [
        f"python -m tools.train eight-types --out runs/1 {options} (left after epoch 3)"
    ]
    assert card.input.middle_share == 0.5
    assert card.thresholds.operating == 0.9  # three epochs on noise: nothing is sure enough
    assert card.thresholds.novelty == 0.99
    assert card.figures["junk", "", "validation"]["texture_crops"] == 150
    assert 0 <= card.figures["chula_wbc", "", "validation"]["unlike_training"] <= 1
    assert card.figures["chula_wbc", "", "validation"]["accuracy_without_tenth"] in (0, 1)
    evaluate_classifier.main(
        [
            str(tmp_path / "zoo/tiny.onnx"),
            *("--margins", "1.2"),
            *("--json", str(tmp_path / "f.json")),
            *("--plots", str(tmp_path / "plots")),
        ]
    )
    document = json.loads((tmp_path / "f.json").read_text())
    assert document["margins"] == [1.2]
    assert document["sets"]["chula_wbc"]["accuracy"]["trials"] == 1
    assert document["sets"]["chula_wbc"]["log_loss"] > 0
    splits = load_splits(tmp_path / "data")
    cells = [c for c in read_cells(tmp_path / "data") if c.dataset == "chula_wbc"]
    left_out = evaluate_classifier.evaluate(model, "validation", sets=["chula_wbc"], left_out=["chula_wbc"])
    assert len(left_out["chula_wbc"].cells) == len(cells) > len([c for c in cells if splits[c.key] == "validation"])
    assert (tmp_path / "plots/chula_wbc.png").stat().st_size > 1000


def test_a_card_names_the_runs_before_the_graph_that_it_began_with(checkpoint: Path, tmp_path: Path) -> None:
    graph, plan = export_classifier.build_graph(checkpoint, export_classifier.Fitted())
    told = {"command": "train --out runs/classifier --start runs/1/last.pt", "earlier_runs": ["train --out runs/1"]}
    values = export_classifier.values_of("old", plan, graph.SerializeToString(), 0.4, told, novel=False)
    (tmp_path / "old.toml").write_text(toml(values))
    runs = export_classifier.runs_of(tmp_path / "old.toml")
    assert runs == ("train --out runs/1", "train --out runs/2 --start runs/1/last.pt")
    third = export_classifier.earlier_run(3, checkpoint, len(runs))
    assert third.endswith("--seed 3 --start BEFORE.onnx (left after epoch 3)")
    assert export_classifier.start_of(4, len(runs)) == " --start runs/3/last.pt"
    assert export_classifier.start_of(1, 0) == ""
    (tmp_path / "old.toml").write_text(toml({**values, "training": {}}))
    with pytest.raises(ValueError, match="got no training command"):
        export_classifier.runs_of(tmp_path / "old.toml")


def test_a_graph_with_its_card_is_taken_as_a_checkpoint_is(checkpoint: Path, tmp_path: Path) -> None:
    graph, plan = export_classifier.build_graph(checkpoint, export_classifier.Fitted(1.7))
    runs = {"command": "train --start runs/1/last.pt", "earlier_runs": ["train --out runs/1"]}
    told = {**dataclasses.asdict(plan), "epoch_of_weights": 3, "mean_of_runs": 1, **runs}
    del told["input_px"], told["margin"]
    values = export_classifier.values_of("old", plan, graph.SerializeToString(), 0.4, told, novel=False)
    (tmp_path / "old.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "old.toml").write_text(toml(values))
    network, same, state = load_network(tmp_path / "old.onnx")
    assert same == plan
    assert state == {"epoch": 3, "mean_of": 1, "runs": runs}
    x = torch.rand(2, 3, plan.input_px, plan.input_px)
    with torch.no_grad():
        for now, then in zip(network(x), load_network(checkpoint)[0](x), strict=True):
            assert torch.allclose(now, then, atol=1e-4)
    (tmp_path / "old.toml").write_text(toml({**values, "training": {}}))
    with pytest.raises(ValueError, match=r"got no classifier of tools\.train eight-types"):
        load_network(tmp_path / "old.onnx")


def test_the_mean_of_runs_lies_between_them(checkpoint: Path, tmp_path: Path) -> None:
    after_an_epoch(tmp_path / "next", start=checkpoint)
    both = [checkpoint, tmp_path / "next/last.pt"]
    mean, plan, state = load_network(export_classifier.mean_of(both, tmp_path / "mean.pt"))
    assert (plan, state["mean_of"]) == (PLAN, 2)
    parts = [load_network(path)[0].classes.weight for path in both]
    assert torch.allclose(mean.classes.weight, (parts[0] + parts[1]) / 2, atol=1e-7)
    assert not torch.equal(*parts)
    wider = dataclasses.replace(PLAN, attribute_weight=0.1)
    after_an_epoch(tmp_path / "wider", wider)
    with pytest.raises(ValueError, match="average one family"):
        export_classifier.mean_of([checkpoint, tmp_path / "wider/last.pt"], tmp_path / "no.pt")


def test_unknown_model_is_one_clear_error() -> None:
    with pytest.raises(Exception, match="no-such-model"):
        evaluate_classifier.Model("no-such-model")


def test_toml_takes_tables_and_lists_of_tables_but_no_none() -> None:
    text = toml({"a": 1, "n": None, "t": {"x": [1, 2.5], "deep": {"y": 'é"'}}, "rows": [{"b": True}, {"b": False}]})
    import tomllib

    assert tomllib.loads(text) == {
        "a": 1,
        "t": {"x": [1, 2.5], "deep": {"y": 'é"'}},
        "rows": [{"b": True}, {"b": False}],
    }
    with pytest.raises(TypeError, match="NoneType"):
        toml_value(None)


def test_stored_square_keeps_the_box(tmp_path: Path) -> None:
    cell = stored_cells(2).cells[0]
    image = np.full((180, 288, 3), 200, np.uint8)
    image[80:140, 80:150] = 10
    square, box = crops.store_square(cell, image)
    assert square.shape == (224, 224, 3)
    x1, y1, x2, y2 = box.round().astype(int)
    assert (square[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3] == 10).all()
    outside = square.copy()
    outside[y1 - 3 : y2 + 3, x1 - 3 : x2 + 3] = 200
    assert (outside == 200).all()


def test_a_cell_alone_keeps_the_cell_and_loses_its_neighbours() -> None:
    square = np.full((224, 224, 3), 230, np.uint8)
    square[90:130, 100:140] = (200, 30, 90)
    square[10:50, 10:60] = (60, 60, 200)
    out = augment.alone(square, np.float32([100, 90, 140, 130]), np.random.default_rng(1))
    np.testing.assert_array_equal(out[100:120, 110:130], square[100:120, 110:130])
    assert (out[10:50, 10:60] == 230).all()


class ScriptedDetector:
    """Finds one red and two nucleated cells in every picture, one of them below the card's threshold."""

    card = SimpleNamespace(name="scripted", thresholds=SimpleNamespace(operating=0.4))

    def detect(self, frames: Sequence[np.ndarray]) -> list[Detections]:
        boxes = np.float32([[99, 61, 141, 105], [100, 60, 140, 104], [102, 60, 150, 104]])
        names = ("RBC", "WBC", "erythroblast")
        scores = np.float32([0.9, 0.3, 0.8])
        return [Detections(boxes, scores, np.arange(3), names, ("red", "white", "nucleated red"), False)]


def test_a_detector_gives_the_boxes_of_fields(tmp_path: Path) -> None:
    make_data(tmp_path)
    cells = [c for c in read_cells(tmp_path) if c.dataset in ("chula_wbc", "wbc_masks", "bccd")]
    found = evaluate_classifier.boxed_by(ScriptedDetector(), cells)  # type: ignore[arg-type]
    assert {c.dataset for c in found} == {"chula_wbc"}  # the cell of bccd lies elsewhere
    assert [c.box_px for c in found] == [(102, 60, 150, 104)] * 3
