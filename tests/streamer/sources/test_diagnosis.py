"""Why a stream does not open: each reason has a message of its own, the same with every back end."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from streamer.sources import SourceError, diagnosis, open_source, parse_source
from streamer.sources.base import SourceAbsentError
from streamer.sources.decoder import OpenDecoder, Timeouts
from streamer.sources.diagnosis import is_film, why_not
from streamer.sources.stream import StreamSource
from streamer.sources.video import VideoFileSource
from tests.streamer.sources.back_ends import each_back_end
from tests.streamer.sources.network_camera import Page, RtspServer, WebServer


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    html = b"<!DOCTYPE html><html><body>The camera's own page</body></html>"
    server = WebServer(
        {
            "/": Page("text/html; charset=utf-8", html),
            "/secret": Page("video/x-motion-jpeg", b"", password="right"),
            "/numbers": Page("text/csv", b"1,2\n"),
            "/film": Page("video/mp4", b"\0" * 100),
            "/picture": Page("image/jpeg", b"\0" * 100),
        }
    )
    yield server
    server.close()


@each_back_end
@pytest.mark.parametrize(
    ("path", "user", "got", "remedy"),
    [
        ("/secret", "user:wrong@", "a wrong user or password for 127.0.0.1", "write them as http://USER:PASSWORD@"),
        ("/secret", "", "no user and password, where it wants them,", "write them as http://USER:PASSWORD@"),
        ("/nowhere", "", "no such path '/nowhere'", "look for the stream's path in the camera's manual"),
        ("/", "", "a web page at '/'", "give the address of the stream itself"),
        ("/numbers", "", "but no video (text/csv)", "check that the address is that of a stream"),
    ],
)
def test_what_a_web_server_has_instead(
    web: WebServer, path: str, user: str, got: str, remedy: str, open_decoder: OpenDecoder
) -> None:
    source = StreamSource("net", web.url(path, user), lambda: 0, timeouts=Timeouts(3, 3), open_decoder=open_decoder)
    with pytest.raises(SourceError) as caught:
        source.open()
    said = str(caught.value)
    assert got in said
    assert remedy in said
    assert "\n" not in said
    assert "wrong@" not in said
    assert not isinstance(caught.value, SourceAbsentError)


def test_the_right_password_is_no_reason(web: WebServer) -> None:
    assert "password" not in why_not(web.url("/secret", "user:right@")).got


@pytest.mark.parametrize("scheme", ["Digest", "Basic"])
@pytest.mark.parametrize(
    ("status", "user", "got"),
    [
        (200, "user:wrong@", "a wrong user or password"),
        (200, "", "no user and password"),
        (404, "user:password@", "no such path '/stream'"),
        (454, "user:password@", "no such path '/stream'"),
        (503, "user:password@", "the status 503"),
        (200, "user:password@", "but no video"),
    ],
)
def test_what_an_rtsp_server_says(status: int, user: str, got: str, scheme: str) -> None:
    server = RtspServer(status, scheme=scheme)
    try:
        assert got in why_not(server.url(user)).got
    finally:
        server.close()
    assert all("password" not in request for request in server.asked)


def test_what_speaks_another_language_is_no_video(web: WebServer) -> None:
    diagnosis = why_not(web.url("/").replace("http://", "rtsp://"))
    assert "but no video" in diagnosis.got
    assert not diagnosis.is_absent


def test_nobody_there(free_port: int) -> None:
    diagnosis = why_not(f"rtsp://user:password@127.0.0.1:{free_port}/stream")
    assert diagnosis.is_absent
    assert diagnosis.got.startswith("'Connection refused' from 127.0.0.1:")
    assert why_not("udp://127.0.0.1:9").is_absent


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_one_that_takes_the_call_and_says_nothing_may_not_be_on_yet(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = why_not(f"{scheme}://127.0.0.1:{port}/stream")
    assert found.got == f"no answer from 127.0.0.1:{port} in 0.1 s"
    assert found.is_absent


def test_a_film_on_a_web_server_is_told_from_a_camera(web: WebServer) -> None:
    assert is_film("http://127.0.0.1:1/a/film.MP4?x=1")
    assert is_film(web.url("/film"))
    assert not is_film(web.url("/picture"))
    assert not is_film(web.url("/nowhere"))
    assert not is_film("rtsp://127.0.0.1:1/film.mp4")
    film = open_source(parse_source(web.url("/film")))
    assert isinstance(film, VideoFileSource)
    assert film.default_mode == "analysis"
    assert isinstance(open_source(parse_source(web.url("/"))), StreamSource)


@each_back_end
def test_a_film_that_is_not_there(web: WebServer, open_decoder: OpenDecoder) -> None:
    film = VideoFileSource("film", web.url("/a.mp4", "user:wrong@"), lambda: 0, open_decoder=open_decoder)
    with pytest.raises(SourceError, match=r"film http://127.*: got no such path '/a\.mp4'") as caught:
        film.open()
    assert "wrong@" not in str(caught.value)
