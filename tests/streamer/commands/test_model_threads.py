"""How many threads one model call takes: what is left of the cores, shared by the sources."""

from __future__ import annotations

import pytest

from streamer.commands.run.build import model_threads
from streamer.config import Config
from streamer.records import Mode


@pytest.mark.parametrize(
    ("modes", "cores", "threads"),
    [
        pytest.param(["analysis"], 2, 1, id="one core places and counts"),
        pytest.param(["analysis"], 4, 3, id="the others look"),
        pytest.param(["analysis"], 16, 4, id="at most four"),
        pytest.param(["analysis"], 1, 1, id="at least one"),
        pytest.param(["live"], 2, 2, id="a camera leaves time between its frames"),
        pytest.param(["live", "live"], 2, 1, id="two cameras"),
        pytest.param(["live", "analysis"], 8, 3, id="one of both"),
    ],
)
def test_model_calls_share_the_cores(modes: list[Mode], cores: int, threads: int) -> None:
    assert model_threads(Config(), modes, cores) == threads


def test_every_frame_is_looked_at_side_by_side_and_a_given_number_is_kept() -> None:
    assert model_threads(Config(every_frame=True), ["live"], 8) == 1
    assert model_threads(Config(threads=5), ["analysis"], 2) == 5
