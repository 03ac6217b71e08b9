"""Encoding, decoding, the version rule, and what is checked in about the messages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.protocol import requests
from streamer.protocol.messages import (
    MESSAGE_TYPES,
    AnyMessage,
    Detection,
    DifferentialMessage,
    Envelope,
    FrameMessage,
    ProtocolVersionError,
    WireError,
    decode,
    encode,
    topic_of,
    type_of,
)
from streamer.records import (
    AbsoluteCounts,
    AbsoluteShare,
    AreaStatus,
    AuditStatus,
    CellShape,
    ClassShare,
    Flag,
    InferenceServerStatus,
    InferenceStatus,
    MergedIsland,
    NearestLaboratory,
    PositionsStatus,
    RecordingStatus,
    Review,
    ShadowStatus,
    SlideInfo,
    SourceStatus,
    StagePoint,
    StagePosition,
    StreamStatus,
    Verdict,
    VerdictReason,
    WorstLaboratory,
)
from tests.streamer.protocol.message_cases import make_cell, make_differential, make_factory, one_of_each
from tools.report.schemas import FOLDER, make_schemas

PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"

numbers = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(0, 2**62)
text = st.text(max_size=12)
probabilities = st.none() | st.dictionaries(text, numbers, max_size=3)
detections = st.one_of(
    st.builds(Detection, box_px=st.tuples(*[numbers] * 4), label=text, kind=text, score=numbers, counted=st.booleans()),
    st.builds(
        Detection,
        box_px=st.tuples(*[numbers] * 4),
        label=text,
        kind=st.just("white"),
        score=numbers,
        counted=st.booleans(),
        cell_id=st.none() | whole,
        is_new=st.booleans(),
        look_class=st.none() | text,
        look_probabilities=probabilities,
        class_=st.none() | text,
        class_probabilities=probabilities,
    ),
)
frames = st.builds(
    FrameMessage,
    session=text,
    run_id=text,
    source=text,
    seq=whole,
    session_seq=whole,
    published_ns=whole,
    published_utc=text,
    frame_id=whole,
    captured_ns=whole,
    captured_utc=text,
    width=whole,
    height=whole,
    file=st.none() | text,
    stage=st.none() | st.builds(StagePosition, island=whole, x_px=numbers, y_px=numbers, quality=numbers),
    focus=st.none() | numbers,
    accepted=st.booleans(),
    reasons=st.lists(text, max_size=3),
    truncated=st.booleans(),
    detections=st.lists(detections, max_size=4),
    timings_ms=st.dictionaries(text, numbers, max_size=3),
)


def as_sent(message: AnyMessage, **changes: object) -> bytes:
    return json.dumps({**json.loads(encode(message)), **changes}).encode()


@pytest.fixture
def message() -> AnyMessage:
    return make_factory().cell(make_cell())


@given(frames)
def test_what_is_encoded_is_decoded_again(message: FrameMessage) -> None:
    header = encode(message)
    assert decode(header) == message
    assert b"\n" not in header


def test_each_type_has_its_topic_and_comes_first_in_its_header() -> None:
    messages = one_of_each(make_factory("cam_2"))
    assert [topic_of(m) for m in messages] == ["frame.cam_2", "cell.cam_2", "differential.cam_2", "health.cam_2"]
    for message in messages:
        assert encode(message).startswith(f'{{"type":"{type_of(message)}","version":"2.0",'.encode())
        assert decode(encode(message)) == message


def test_fields_that_a_minor_version_added_are_ignored(message: AnyMessage) -> None:
    assert decode(as_sent(message, colour="blue", nested={"a": [1]})) == message
    for version in ("2.7", "1.7"):
        assert decode(as_sent(message, version=version, extra=1)) == msgspec.structs.replace(message, version=version)


def test_a_differential_of_protocol_1_is_read_with_its_flags_and_without_what_it_did_not_measure() -> None:
    sent = json.loads(encode(make_factory().differential(make_differential(3))))
    added = {"edge", "size_bias", "smudge", "smudge_per_100_wbc", "artefacts", "ranges"}
    old = {name: value for name, value in sent.items() if name not in added}
    for share in old["classes"].values():
        del share["percent_size_corrected"]
    message = decode(json.dumps({**old, "version": "1.0", "flags": ["nucleated red cells seen"]}).encode())
    assert isinstance(message, DifferentialMessage)
    assert message.flags == (Flag(code="1.x", text="nucleated red cells seen"),)
    assert (message.total, message.edge, message.smudge, message.ranges, message.version) == (3, None, None, {}, "1.0")
    assert message.classes["neutrophil"].percent_size_corrected is None
    assert decode(encode(message)) == message
    with pytest.raises(WireError, match="flags"):
        decode(json.dumps({**old, "version": "2.0", "flags": ["nucleated red cells seen"]}).encode())


def test_the_snapshot_of_a_streamer_of_protocol_1_is_read() -> None:
    source = requests.SourceSnapshot(
        session="s", session_seq=3, oldest_session_seq=0, last_seq={}, health=None,
        differential=make_factory().differential(make_differential(3)),
    )  # fmt: skip
    reply = requests.SnapshotReply(id="1", run_id="r", sources={"cam": source})
    old = json.loads(requests.encode_reply(reply))
    old["version"] = old["sources"]["cam"]["differential"]["version"] = "1.0"
    old["sources"]["cam"]["differential"]["flags"] = ["blasts seen"]
    read = requests.decode_reply(json.dumps(old).encode())
    assert isinstance(read, requests.SnapshotReply)
    assert read.sources["cam"].differential is not None
    assert read.sources["cam"].differential.flags == (Flag(code="1.x", text="blasts seen"),)
    old["sources"]["cam"]["differential"] = None
    assert requests.decode_reply(json.dumps(old).encode()).version == "1.0"
    for broken in ({}, {"differential": {"flags": ["blasts seen"]}}, {"differential": 3}):
        with pytest.raises(WireError):
            requests.decode_reply(json.dumps({**old, "sources": {"cam": broken}}).encode())


def test_a_type_that_a_minor_version_added_is_an_envelope(message: AnyMessage) -> None:
    envelope = decode(as_sent(message, type="movie", version="1.1"))
    assert isinstance(envelope, Envelope)
    assert (topic_of(envelope), envelope.seq, envelope.version) == ("movie.cam", 0, "1.1")


@pytest.mark.parametrize("version", ["3.0", "0.9", "10.0", ""])
@pytest.mark.parametrize("type_", ["cell", "something new"])
def test_another_major_version_is_refused(message: AnyMessage, version: str, type_: str) -> None:
    with pytest.raises(ProtocolVersionError, match=rf"got a message of protocol {version}, expected 2\.x or 1\.x"):
        decode(as_sent(message, type=type_, version=version))


def test_a_major_version_with_other_fields_is_refused_for_its_version() -> None:
    with pytest.raises(ProtocolVersionError, match=r"protocol 3\.0"):
        decode(b'{"version": "3.0", "kind": "cell"}')


@pytest.mark.parametrize("version", ["1", "1.x", "1.", "1.0.1"])
def test_a_version_that_is_none(message: AnyMessage, version: str) -> None:
    with pytest.raises(WireError, match="version"):
        decode(as_sent(message, version=version))


@pytest.mark.parametrize(
    "header", [b"", b"{}", b"[]", b"null", b"hello", b"\xff\xfe", b'{"version":1}', b'{"type":"cell"}']
)
def test_what_is_no_message(header: bytes) -> None:
    with pytest.raises(WireError, match="expected a leukostream message"):
        decode(header)


def test_a_field_of_the_wrong_type_is_named(message: AnyMessage) -> None:
    with pytest.raises(WireError, match=r"message of type 'cell'.*looks"):
        decode(as_sent(message, looks="two"))


def test_a_new_type_without_the_common_fields(message: AnyMessage) -> None:
    with pytest.raises(WireError, match=r"message of type 'movie'.*missing required field `session`"):
        decode(b'{"type": "movie", "version": "1.1"}')


@given(st.binary(max_size=60) | st.integers(0, 400).map(lambda n: encode(make_factory().cell(make_cell()))[:n]))
def test_decode_raises_nothing_but_wire_errors(header: bytes) -> None:
    with pytest.raises(WireError):
        decode(header)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_header_is_decoded_or_refused(place: int, byte: int) -> None:
    header = bytearray(encode(make_factory().cell(make_cell())))
    header[place % len(header)] = byte
    try:
        decoded = decode(bytes(header))
    except WireError:
        return
    assert type_of(decoded)


def test_what_json_has_no_word_for_is_not_sent(message: AnyMessage) -> None:
    with pytest.raises(NotImplementedError, match="a message holds a complex"):
        encode(msgspec.structs.replace(message, looks=1j))


def test_the_schemas_checked_in_are_those_of_the_structs() -> None:
    on_disk = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert on_disk == make_schemas(), "run python -m tools.report schemas"


def test_the_schemas_describe_what_is_sent() -> None:
    factory = make_factory()
    for message in (*one_of_each(factory), factory.end("finished", "end of the source")):
        schema = json.loads(make_schemas()[type_of(message)])
        sent = json.loads(encode(message))
        assert set(schema["required"]) == set(sent) == set(schema["properties"])
    shares = json.loads(make_schemas()["differential"])["$defs"]["ClassShare"]
    assert shares["required"] == ["count", "percent", "low", "high", "percent_size_corrected"]
    detection = json.loads(make_schemas()["frame"])["$defs"]["Detection"]
    white_only = {"look_class", "look_probabilities", "class", "class_probabilities"}
    assert set(detection["properties"]) - set(detection["required"]) == white_only | {"carried"}


def test_every_field_is_in_the_document_and_none_else() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", PROTOCOL.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    structs = [
        *MESSAGE_TYPES.values(),
        *requests.REQUEST_TYPES.values(),
        *requests.REPLY_TYPES.values(),
        *(StagePosition, StagePoint, MergedIsland, Detection, CellShape, ClassShare, Flag, SourceStatus),
        *(PositionsStatus, AuditStatus, AreaStatus),
        *(ShadowStatus, StreamStatus, RecordingStatus, InferenceStatus, InferenceServerStatus),
        *(Review, Verdict, VerdictReason, WorstLaboratory, NearestLaboratory),
        *(requests.SourceSnapshot, requests.SourceState),
        *(SlideInfo, AbsoluteCounts, AbsoluteShare),
    ]
    fields = {field.encode_name for struct in structs for field in msgspec.structs.fields(struct)}
    assert {name for name in documented if not name.startswith("leukostream_")} == fields | {"type", "request", "reply"}


def test_a_message_is_encoded_once_however_many_ask_and_anew_where_it_is_another():
    message = make_factory().end("finished", "end of the source")
    assert encode(message) is encode(message)
    changed = msgspec.structs.replace(message, reason="another")
    assert decode(encode(changed)) == changed
    assert decode(encode(message)) == message
