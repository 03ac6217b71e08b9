import pytest

from tests.streamer.journal.journal_cases import write_walk


@pytest.fixture(scope="package")
def walk(tmp_path_factory):
    """The journal of a short walk over a slide: 16 white cells, of which two were named by a person."""
    return write_walk(tmp_path_factory.mktemp("interop") / "walk.db", ["monocyte", "basophil"])
