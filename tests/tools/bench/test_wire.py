"""The wire's benchmark in small: its numbers are those of a wire that loses nothing."""

from __future__ import annotations

from tools.bench.wire import crowd, latency, publish_cost, receive_rate


def test_every_measurement_runs_and_nothing_is_lost() -> None:
    assert publish_cost(frames=5)["frames"] == 5
    assert receive_rate(messages=300)["received"] == 300
    assert latency(messages=5)["messages"] == 5
    result = crowd(6, 2.0, processes=2)
    assert (result["subscribers"], result["with_exact_state"], result["lost"]) == (6, 6, 0)
