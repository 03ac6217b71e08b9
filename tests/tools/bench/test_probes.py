"""The probes beside slow clients."""

from __future__ import annotations

import numpy as np

from tools.bench.probes import measured


def test_every_probe_is_answered_beside_slow_clients() -> None:
    took_ms = measured(slow=3, probes=4)
    assert took_ms.shape == (4,)
    assert np.all(took_ms > 0)
