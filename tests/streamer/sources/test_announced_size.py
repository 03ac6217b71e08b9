from __future__ import annotations

import threading

import pytest

from streamer.sources.announced_size import AnnouncedSize, size_of
from streamer.sources.diagnosis import described
from tests.streamer.sources.network_camera import RtspServer

H264 = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\nm=video 0 RTP/AVP 96\r\na=framerate:25\r\n"
    "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LAHtk=,aMuMsg==;profile-level-id=42c01e\r\n"
)
H265 = "m=video 0 RTP/AVP 97\r\na=fmtp:97 sprop-vps=QAEMAf; sprop-sps=QgEBAUA; sprop-pps=RAHA\r\n"


def test_what_tells_the_size() -> None:
    assert size_of(H264) == ("sprop-parameter-sets=Z0LAHtk=,aMuMsg==",)
    assert size_of(H265) == ("sprop-sps=QgEBAUA",)
    assert size_of("m=video 0 RTP/AVP 26\r\na=framesize:26 640-480\r\na=x-dimensions:640,480\r\n") == (
        "a=framesize:26 640-480",
        "a=x-dimensions:640,480",
    )
    assert size_of(H264.replace("framerate:25", "framerate:30").replace("o=- 1", "o=- 2")) == size_of(H264)
    assert size_of("v=0\r\n") == size_of(None) == ()


@pytest.mark.parametrize("scheme", ["Digest", "Basic"])
def test_a_camera_is_asked_with_its_password(scheme: str) -> None:
    server = RtspServer(200, scheme=scheme, description=H264)
    try:
        assert described(server.url()) == H264
        assert described(server.url("user:wrong@")) is None
    finally:
        server.close()


def test_nobody_is_asked_where_nobody_answers(free_port: int) -> None:
    assert described(f"rtsp://127.0.0.1:{free_port}/a") is None
    assert described(f"http://127.0.0.1:{free_port}/a") is None


def test_another_description_is_a_change_and_no_answer_is_none() -> None:
    said = iter([None, H264, None, "v=0", H264, H264.replace("Z0LAHtk", "Z0LAFtk")])
    seen: list[bool] = []
    done = threading.Event()

    def describe() -> str | None:
        seen.append(size.changed)
        answer = next(said)
        if answer is not None and "Z0LAF" in answer:
            done.set()
        return answer

    size = AnnouncedSize(describe, every_s=0.001)
    size.start()
    assert done.wait(10)
    size._thread.join(10)
    assert size.changed
    assert seen == [False] * 6
