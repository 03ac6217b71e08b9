"""What films bring along: their time, how they are to be turned, new codecs; from a disk or a web server."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streamer.records import Frame, Skip
from streamer.sources import open_source, parse_source
from streamer.sources.decoder import OpenDecoder
from streamer.sources.video import VideoFileSource
from tests.streamer.sources.av1_film import AV1_FILM
from tests.streamer.sources.back_ends import each_back_end, needs_av, open_av
from tests.streamer.sources.network_camera import Page, WebServer

av = pytest.importorskip("av", reason="PyAV is not installed")
sender = pytest.importorskip("tools.bench.sender")

FRAMES = 24
QUARTER_TURN = b"".join(
    number.to_bytes(4, "big", signed=True) for number in (0, 65536, 0, -65536, 0, 0, 0, 0, 0x40000000)
)
"""The matrix of a track that is to be turned by 90 degrees."""


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """FRAMES numbered frames 320 x 240, begun at 2026-03-04 05:06:07."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    film = sender.NumberedFilm.encode(320, 240, frames=FRAMES)
    with av.open(str(path), "w") as out:
        out.metadata["creation_time"] = "2026-03-04T05:06:07.000000Z"
        stream = out.add_stream("libx264", rate=film.fps)
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        for number, frame in enumerate(film.frames):
            packet = av.Packet(frame.data)
            packet.stream, packet.time_base = stream, Fraction(1, film.fps)
            packet.pts = packet.dts = number
            packet.is_keyframe = frame.is_key
            out.mux(packet)
    return path.read_bytes()


def read(source: VideoFileSource) -> list[Frame | Skip]:
    source.open()
    items = list(iter(source.read, None))
    source.close()
    return items


def frames_of(source: VideoFileSource) -> list[Frame]:
    items = read(source)
    assert all(isinstance(item, Frame) for item in items), items
    return [item for item in items if isinstance(item, Frame)]


@each_back_end
def test_every_frame_in_the_films_own_pixels_whatever_way_it_is_to_be_turned(
    tmp_path: Path, mp4: bytes, open_decoder: OpenDecoder
) -> None:
    """As an image's EXIF orientation, the tag is ignored: boxes are in pixels as stored."""
    head = mp4.index(b"tkhd") + 4
    turned = mp4[: head + 40] + QUARTER_TURN + mp4[head + 76 :]
    pictures = []
    for name, data in (("plain.mp4", mp4), ("turned.mp4", turned)):
        (tmp_path / name).write_bytes(data)
        frames = frames_of(VideoFileSource("film", str(tmp_path / name), lambda: 0, open_decoder=open_decoder))
        assert [sender.number_of(frame.image) for frame in frames] == list(range(FRAMES))
        pictures.append(frames[5].image)
    assert pictures[0].shape == (240, 320, 3)
    assert np.array_equal(*pictures)


def test_the_back_ends_give_the_same_pixels(tmp_path: Path, mp4: bytes) -> None:
    from streamer.sources.opencv_decoder import open_opencv

    (tmp_path / "film.mp4").write_bytes(mp4)
    one, other = (
        frames_of(VideoFileSource("film", str(tmp_path / "film.mp4"), lambda: 0, open_decoder=open_decoder))[3].image
        for open_decoder in (open_av, open_opencv)
    )
    assert np.abs(one.astype(int) - other.astype(int)).mean() < 2


@needs_av
def test_the_films_own_time(tmp_path: Path, mp4: bytes) -> None:
    (tmp_path / "film.mp4").write_bytes(mp4)
    frames = frames_of(VideoFileSource("film", str(tmp_path / "film.mp4"), lambda: 7, open_decoder=open_av))
    begun_ns = 1_772_600_767 * 10**9
    assert [frame.captured_utc_ns for frame in frames[:2]] == [begun_ns, pytest.approx(begun_ns + 1e9 / 30, abs=1e5)]
    assert {frame.captured_ns for frame in frames} == {7}


@each_back_end
def test_a_film_that_does_not_say_when_it_was_begun(tmp_path: Path, mp4: bytes, open_decoder: OpenDecoder) -> None:
    (tmp_path / "film.mp4").write_bytes(AV1_FILM if open_decoder is open_av else mp4)
    source = VideoFileSource("film", str(tmp_path / "film.mp4"), lambda: 0, open_decoder=open_decoder)
    assert {frame.captured_utc_ns for frame in frames_of(source)} == {None}


@needs_av
def test_av1(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(AV1_FILM)
    frames = frames_of(VideoFileSource("film", str(tmp_path / "film.mp4"), lambda: 0, open_decoder=open_av))
    assert [frame.image.shape for frame in frames] == [(64, 64, 3)] * 6


@each_back_end
@pytest.mark.parametrize("path", ["/slides/film.mp4", "/film"])
def test_a_film_of_a_web_server_is_analysed_and_not_sampled(mp4: bytes, path: str, open_decoder: OpenDecoder) -> None:
    server = WebServer({path: Page("video/mp4", mp4)})
    try:
        source = open_source(parse_source(server.url(path)), now_ns=time.monotonic_ns)
        assert (source.default_mode, type(source)) == ("analysis", VideoFileSource)
        film = VideoFileSource("film", server.url(path), time.monotonic_ns, open_decoder=open_decoder)
        assert [sender.number_of(frame.image) for frame in frames_of(film)] == list(range(FRAMES))
    finally:
        server.close()
