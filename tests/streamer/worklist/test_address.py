"""Where a list is kept, and that a password never leaves the address."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")

from engines.base import UsageError
from streamer.worklist.address import address_of


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("lab", "lab/worklist.sqlite"),
        ("/data/lab/", "/data/lab/worklist.sqlite"),
        ("sqlite:///lab.sqlite", "lab.sqlite"),
        ("sqlite:////data/lab.sqlite", "/data/lab.sqlite"),
        ("sqlite:///a b%20#c", "a b%20#c"),
    ],
)
def test_files(given, file):
    address = address_of(given)
    assert (str(address.file), address.shown, address.url.database) == (file, file, file)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://db.lab/lab", "postgresql://db.lab/lab"),
        ("postgres://me@db.lab:5433/lab", "postgresql://me@db.lab:5433/lab"),
        ("postgresql://me:secret@[::1]:5433/lab?sslmode=require", "postgresql://me@[::1]:5433/lab"),
        ("postgresql:///lab?host=/run/postgresql&password=secret", "postgresql:///lab"),
    ],
)
def test_servers(given, shown):
    address = address_of(given)
    assert (address.file, address.shown, address.url.drivername) == (None, shown, "postgresql+psycopg")
    assert "secret" not in repr(address)
    if "secret" in given:
        said = address.without_secrets('connection with "secret" failed:\n  secret')
        assert said == 'connection with "***" failed: ***'


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "got nothing"),
        ("sqlite://", "with three slashes"),
        ("sqlite:///", "with three slashes"),
        ("sqlite://lab.sqlite", "with three slashes"),
        ("sqlite:///lab.sqlite?mode=memory", "with three slashes"),
        ("mysql://me:secret@db/lab", "another kind (mysql://)"),
        ("postgresql+psycopg2://me:secret@db/lab", "another kind"),
        ("postgresql://me:secret@db", "got no database"),
        ("postgresql://me:secret@db:port/lab", "can't be read"),
        ("postgresql://me:s@secret@db/lab", "can't be read"),
        ("postgresql://me:s@sec/ret@db/lab", "can't be read"),
    ],
)
def test_what_is_none_is_refused_without_its_password(given, expected):
    with pytest.raises(UsageError) as told:
        address_of(given)
    assert expected in str(told.value)
    assert not [secret for secret in ("secret", "sec/ret", "ret@") if secret in str(told.value)]
    assert told.value.__cause__ is None


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "list.sqlite").touch()
    with pytest.raises(UsageError, match="got a file, expected a folder, or sqlite:///"):
        address_of(str(tmp_path / "list.sqlite"))


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=4, max_size=20))
def test_any_password_is_kept_and_never_shown(password):
    address = address_of(f"postgresql://u:{quote(password, safe='')}@h/d")
    assert address.url.password == password
    assert address.shown == "postgresql://u@h/d"
    assert password not in address.without_secrets(f"error: {password}").removeprefix("error: ")
