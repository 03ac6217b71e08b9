import itertools

import pytest

from tests.requirements import why_no_postgresql


@pytest.fixture(scope="package")
def server():
    """A PostgreSQL server."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    why_not = why_no_postgresql()
    if why_not is not None:
        pytest.skip(f"PostgreSQL is not installed: {why_not}")
    from tests.conftest import a_free_port
    from tests.streamer.worklist.postgresql import running

    with running(a_free_port()) as server:
        yield server


_NUMBERS = itertools.count()


@pytest.fixture
def schema(server):
    """A new, empty schema of the server: its name."""
    name = f"lab{next(_NUMBERS)}"
    server.execute(f"CREATE SCHEMA {name}")
    return name


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.lengthy)])
def to(request, tmp_path):
    """Where a list may be made, as after --to."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/list.sqlite"
    server, name = request.getfixturevalue("server"), request.getfixturevalue("schema")
    return server.address(name)
