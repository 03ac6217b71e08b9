"""The back ends that decode films and streams, for tests that hold for each."""

from __future__ import annotations

import pytest

from streamer.sources.decoder import Decoder, Timeouts, has_av
from streamer.sources.opencv_decoder import open_opencv

WITHOUT_AV = "PyAV is not installed"


def open_av(address: str, timeouts: Timeouts | None = None) -> Decoder | None:
    """With the import inside: the tests of the other back end run without it."""
    from streamer.sources.av_decoder import open_av

    return open_av(address, timeouts)


needs_av = pytest.mark.skipif(not has_av(), reason=WITHOUT_AV)

each_back_end = pytest.mark.parametrize(
    "open_decoder", [pytest.param(open_opencv, id="opencv"), pytest.param(open_av, id="av", marks=needs_av)]
)
