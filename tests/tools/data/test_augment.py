"""Changes that part a cell's cytoplasm from its nucleus, and its grain from its shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from tools.data.augment import Augmentation, degrade, regrained, stained_apart  # noqa: E402

PLASMA, CYTOPLASM, NUCLEUS = (0.1, 0.05, 0.02), (0.3, 0.5, 0.2), (0.8, 1.6, 1.2)
"""Optical densities of blue, green and red."""


def densities() -> torch.Tensor:
    """(2, 1000, 3): two pictures of plasma, cytoplasm and nucleus, one below the other."""
    parts = [np.tile(colour, (count, 1)) for colour, count in ((PLASMA, 500), (CYTOPLASM, 300), (NUCLEUS, 200))]
    return torch.from_numpy(np.stack([np.concatenate(parts)] * 2).astype(np.float32))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_no_nucleus_is_stained_by_itself(seed: int) -> None:
    before = densities()
    after = stained_apart(before, np.random.default_rng(seed), np.array([0.0, 1.2]))
    torch.testing.assert_close(after[0], before[0])  # of a strength of nothing
    torch.testing.assert_close(after[1, :500], before[1, :500])  # plasma is what stain is measured from
    torch.testing.assert_close(after[1, 800:], before[1, 800:], atol=0.02, rtol=0)
    stain, changed = (x[1, 500:800] - before[1, 0] for x in (before, after))
    ratios = (changed / stain).numpy()
    assert np.abs(ratios - 1).max() > 0.02
    assert np.exp(-1.8) - 0.01 < ratios.min()
    assert ratios.max() < np.exp(1.8) + 0.01


def test_eosin_changes_more_than_the_depth_of_all_stains() -> None:
    """Green, which eosin takes, against red, which it leaves."""
    rng = np.random.default_rng(0)
    before = densities()[:1].expand(200, -1, -1)
    after = stained_apart(before, rng, np.ones(200))
    green, red = ((after[:, 600, channel] / before[:, 600, channel]).log().numpy() for channel in (1, 2))
    assert np.std(green - red) > 0.15
    assert abs(np.mean(red)) < 0.1


def speckled() -> np.ndarray:
    """uint8 (96, 96, 3): fine specks on the left, a broad edge on the right."""
    image = np.full((96, 96, 3), 150, np.uint8)
    image[8:88:6, 6:40:6] = 110
    image[:, 70:] = 90
    return image


def test_grain_is_flattened_or_heightened_and_broad_places_stay() -> None:
    image = speckled()
    spreads = []
    for seed in range(40):
        out = regrained(image, 1.0, np.random.default_rng(seed))
        assert out.dtype == np.uint8
        spreads.append(out[10:86, 8:38].std() / image[10:86, 8:38].std())
        assert np.abs(out[:, 86:].astype(int) - 90).max() <= 1
        assert np.abs(out[:, 50:58].astype(int) - 150).max() <= 2
    assert min(spreads) < 0.8
    assert max(spreads) > 1.3


def test_grain_is_changed_in_the_share_of_crops_that_is_asked_for() -> None:
    calm = Augmentation().weakened(0)
    rng = np.random.default_rng(1)
    changed = [
        [bool((degrade(speckled(), 1.3, rng, how) != speckled()).any()) for _ in range(40)]
        for how in (calm, replace(calm, granules_share=0.5))
    ]
    assert not any(changed[0])
    assert 10 < sum(changed[1]) < 30
