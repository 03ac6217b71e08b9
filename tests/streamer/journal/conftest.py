import pytest

from tests.streamer.journal.runner import Runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def runner(folder):
    runner = Runner(folder / "said.txt")
    yield runner
    runner.close()
