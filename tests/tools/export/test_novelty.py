from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from engines.base import Attribute, Classifications  # noqa: E402
from engines.geometry import crop_squares  # noqa: E402
from tests.tools.cases import make_data  # noqa: E402
from tools.data import CellPicture, junk  # noqa: E402
from tools.evaluate.eight_types import Predictions, attribute_figures, figures, without_tenth  # noqa: E402
from tools.export import novelty  # noqa: E402
from tools.metrics import classification as measures  # noqa: E402


def two_classes(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Around (0, 0) and (4, 0), spread 1 and 3."""
    rng = np.random.default_rng(0)
    classes = np.arange(n) % 2
    return rng.normal(0, 1, (n, 2)) * [1, 3] + np.stack([4 * classes, 0 * classes], 1), classes


def test_distance_is_to_the_nearest_class_in_units_of_its_spread() -> None:
    features, classes = two_classes()
    fitted = novelty.fit(features, classes, np.ones(len(classes)))
    assert fitted.distances(features).mean() == pytest.approx(0.9, abs=0.1)
    centre, beside, between, above = fitted.distances(np.array([[0, 0], [4, 3], [2, 0], [0, 30.0]]))
    assert centre < 0.01
    assert beside == pytest.approx(0.5, rel=0.1)  # one spread in one of two directions
    assert between == pytest.approx(2, rel=0.2)  # two spreads; the ridge makes them a little less
    assert above == pytest.approx(50, rel=0.1)


def test_weights_decide_what_is_usual() -> None:
    features, classes = two_classes()
    rare = features[:, 1] > 4
    heavy = novelty.fit(features, classes, np.where(rare, 50.0, 1.0))
    light = novelty.fit(features, classes, np.ones(len(classes)))
    assert heavy.distances(features[rare]).mean() < 0.6 * light.distances(features[rare]).mean()
    weights = novelty.weights_of(["a", "b", "a", "c"], {"a": 0.6, "b": 0.4})
    assert weights.tolist() == [0.3, 0.4, 0.3, 0]


def test_calibrated_novelty_is_a_half_in_the_middle_and_the_threshold_refuses_what_was_asked() -> None:
    features, classes = two_classes()
    fitted = novelty.fit(features, classes, np.ones(len(classes)))
    distances = fitted.distances(features)
    calibration = novelty.calibrate(distances, np.ones(len(distances)), 0.01)
    module = novelty.Novelty(fitted, calibration)
    found = module(torch.from_numpy(features).float()).numpy()
    assert np.median(found) == pytest.approx(0.5, abs=0.01)
    assert 0.009 <= np.mean(found > novelty.AT_THRESHOLD) <= 0.011
    np.testing.assert_allclose(
        found, 1 / (1 + np.exp(-calibration.slope * (np.log(distances) - calibration.centre))), atol=1e-3
    )


def test_uncalibrated_novelty_gives_the_distances_back() -> None:
    features, classes = two_classes(40)
    fitted = novelty.fit(features, classes, np.ones(40))
    plain = novelty.Novelty(fitted, novelty.Calibration(0.0, 1.0))(torch.from_numpy(features).float()).numpy()
    np.testing.assert_allclose(novelty.uncalibrated(plain), fitted.distances(features), rtol=1e-3, atol=1e-5)


def test_half_precision_holds_whatever_it_meets() -> None:
    features, classes = two_classes()
    fitted = novelty.fit(features, classes, np.ones(len(classes)))
    module = novelty.Novelty(fitted, novelty.Calibration(0.0, 3.0)).half()
    far = torch.tensor([[100.0, -200.0], [0.1, 0.2]]).half()
    found = module(far)
    assert torch.isfinite(found).all()
    assert found[0] > 0.99 > found[1]


def test_junk_is_of_every_kind_and_the_same_for_the_same_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_data(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def crop(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return crop_squares(image, boxes, (48, 48), 1.3)

    found = {part: junk.junk_crops(tmp_path / "data", part, crop, 3) for part in ("validation", "train")}
    every = {**found["validation"], **found["train"]}
    assert {"red cell", "cut", "far out of focus", "blob", "texture"} <= set(every)
    assert all(c.shape[1:] == (48, 48, 3) and c.dtype == np.uint8 and 0 < len(c) <= 3 for c in every.values())
    again = junk.junk_crops(tmp_path / "data", "validation", crop, 3)
    for kind, crops in found["validation"].items():
        np.testing.assert_array_equal(crops, again[kind])
    plain = [np.diff(c.astype(int), axis=1).std() for c in (every["far out of focus"], every["texture"])]
    assert plain[0] < plain[1]


def predictions(n: int = 20) -> Predictions:
    cell = CellPicture("pbc", "a.jpg", Path("a.jpg"), 9, 9, (0, 0, 9, 9), "basophil")
    p = np.zeros((n, 8), np.float32)
    p[:, 0], p[:, 1] = np.linspace(0.51, 1, n), np.linspace(0.49, 0, n)
    p[:2] = p[:2, ::-1]  # the least sure two are wrong
    values = np.tile(np.float32([0.9, 0.1, 0.2, 0.3, 0.5]), (n, 1))
    looks = Classifications(
        p,
        tuple("abcdefgh"),
        np.zeros((n, 0), np.float32),
        (),
        (),
        attribute_probabilities=values,
        attributes=(Attribute("size", ("small", "big")), Attribute("colour", ("red", "green", "blue"))),
        novelty=np.linspace(0, 1, n, dtype=np.float32),
    )
    truth = np.stack([np.arange(n) % 2, np.where(np.arange(n) < 5, 2, -1)], 1)
    return Predictions([cell] * n, looks, truth)


def test_figures_of_attributes_count_the_cells_that_somebody_looked_at() -> None:
    rows = attribute_figures(predictions())
    assert (rows["size"]["cells"], rows["colour"]["cells"]) == (20, 5)
    assert rows["size"]["accuracy"] == 0.5
    assert rows["size"]["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert rows["colour"]["macro_f1"] == 1
    assert measures.macro_f1(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])) == pytest.approx((16 / 19 + 18 / 21) / 2)


def test_figures_leave_out_what_is_novel_and_tell_what_a_tenth_of_abstention_gives() -> None:
    found = predictions()
    assert without_tenth(found) == {"accuracy": 1.0, "balanced_accuracy": 1.0}
    told = figures(found, 0.4, None, novelty=0.9)
    assert told["unlike_training"]["hits"] == 2
    assert told["classified"]["hits"] == 18
    assert told["accuracy_classified"]["hits"] == 16
    assert figures(found, 0.4, None)["unlike_training"] is None
