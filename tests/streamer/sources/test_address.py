from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import UsageError
from streamer.sources import open_source, parse_source, unique_names


@pytest.mark.parametrize(
    ("text", "name", "kind", "target"),
    [
        ("0", "camera0", "camera", "0"),
        ("/dev/video2", "camera2", "camera", "/dev/video2"),
        ("scope=0", "scope", "camera", "0"),
        ("rtsp://user:secret@10.0.0.5:554/a?x=1", "stream-10-0-0-5", "stream", "rtsp://user:secret@10.0.0.5:554/a?x=1"),
        ("http://cam.local/video?fps=5", "cam-local", "stream", "http://cam.local/video?fps=5"),
        ("left-eye=HTTP://cam.local/v", "left-eye", "stream", "HTTP://cam.local/v"),
        ("slides/B-53", "B-53", "path", "slides/B-53"),
        ("slides/B-53/", "B-53", "path", "slides/B-53/"),
        ("slides/B-53/*.jpg", "B-53", "path", "slides/B-53/*.jpg"),
        ("*.jpg", "images", "path", "*.jpg"),
        (".", "images", "path", "."),
        ("clip one.mp4", "clip-one", "path", "clip one.mp4"),
        ("2024-05.mp4", "images-2024-05", "path", "2024-05.mp4"),
        ("./a=b.mp4", "a-b", "path", "./a=b.mp4"),
        ("file:///data/a.mp4", "a", "path", "/data/a.mp4"),
        ("sim:", "sim", "sim", ""),
        ("sim:seed=7,cells=200", "sim", "sim", "seed=7,cells=200"),
        ("demo=sim:seed=7", "demo", "sim", "seed=7"),
        ("replay:night.rec", "night", "replay", "night.rec"),
        ("imagezmq:tcp://h:5555", "imagezmq", "imagezmq", "tcp://h:5555"),
        ("mm:lab/Scope one.cfg,camera=A,xy=B", "Scope-one", "mm", "lab/Scope one.cfg,camera=A,xy=B"),
        ("genicam:40012,exposure=5000", "genicam-40012", "genicam", "40012,exposure=5000"),
        ("genicam:/opt/maker.cti,DEV-7", "DEV-7", "genicam", "/opt/maker.cti,DEV-7"),
        ("left=pylon:0815-0000", "left", "pylon", "0815-0000"),
        (
            "openflexure:scope.local:5000,um_per_step=0.1",
            "scope-local",
            "openflexure",
            "scope.local:5000,um_per_step=0.1",
        ),
        ("größe/ä", "images", "path", "größe/ä"),
    ],
)
def test_forms(text: str, name: str, kind: str, target: str) -> None:
    address = parse_source(text)
    assert (address.name, address.kind, address.target) == (name, kind, target)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "got no source"),
        ("cam=", "got no source"),
        ("1cam=0", "got the name '1cam'"),
        ("my cam=0", "got the name 'my cam'"),
        ("=0", "got the name ''"),
        ("rtsp:///path", "got no host"),
        ("rtsp://[::1/path", "got no host"),
        ("rtsp://host:99999/path", "got no host and port that can be used"),
        ("htp://host/a", "got the scheme 'htp', expected one of rtsp"),
    ],
)
def test_what_cannot_be_meant(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", r"\(")) as caught:
        parse_source(text)
    assert "\n" not in str(caught.value)


def test_the_simulated_slide_and_what_it_does_not_know() -> None:
    source = open_source(parse_source("s=sim:cells=2"), mode="live")
    assert (source.name, source.default_mode) == ("s", "analysis")
    with pytest.raises(UsageError, match="sim: unknown key 'cels'"):
        open_source(parse_source("sim:cels=3"))


def test_a_password_is_not_shown() -> None:
    assert parse_source("rtsp://user:secret@10.0.0.5:554/a").shown == "rtsp://10.0.0.5:554/a"


def test_names_given_stay_and_made_ones_give_way() -> None:
    addresses = unique_names(parse_source(text) for text in ("sim:", "sim:", "sim-2=0", "x=1", "sim:seed=3"))
    assert [address.name for address in addresses] == ["sim", "sim-3", "sim-2", "x", "sim-4"]


def test_one_name_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="got the name 'a' twice"):
        unique_names([parse_source("a=0"), parse_source("a=1")])


@given(st.lists(st.sampled_from(["0", "1", "sim:", "a/x", "b/x", "x=2", "x-2=3", "rtsp://x/"]), max_size=8))
def test_names_are_always_different_and_valid(texts: list[str]) -> None:
    try:
        names = [address.name for address in unique_names(parse_source(text) for text in texts)]
    except UsageError:
        assert texts.count("x=2") > 1 or texts.count("x-2=3") > 1
        return
    assert len(set(names)) == len(texts)
    assert all(parse_source(f"{name}=0").name == name for name in names)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = parse_source(text)
    except UsageError:
        return
    assert parse_source(f"{address.name}=0").name == address.name
