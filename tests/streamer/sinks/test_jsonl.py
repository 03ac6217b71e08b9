"""Messages to files and standard output, and what happens when those are full or gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.base import LeukostreamError
from streamer.protocol.messages import encode
from streamer.sinks.jsonl import JsonLines
from tests.streamer.protocol.message_cases import frame_message, make_cell, make_factory, one_of_each

ROOT = Path(__file__).parents[3]
MAKE_CELLS = (
    "from tests.streamer.protocol.message_cases import *; from streamer.sinks.jsonl import JsonLines\n"
    "f = make_factory()\n"
)


def test_lines_are_the_headers_and_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    messages = one_of_each(make_factory())
    sink = JsonLines(str(path))
    for n, message in enumerate(messages, start=1):
        sink.publish(message, b"a picture")
        assert path.read_bytes().splitlines() == [encode(m) for m in messages[:n]]
    sink.close()
    assert (sink.lost, sink.reader_gone) == (0, False)
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    ("written", "left"),
    [
        (b"", b""),
        (b'{"a":1}\n', b'{"a":1}\n'),
        (b'{"a":1}\n{"b":{"c":2}', b'{"a":1}\n'),
        (b'{"a', b""),
        (b"not ours", b"not ours"),
    ],
)
def test_what_a_killed_process_left_of_a_line_is_cut_off(tmp_path: Path, written: bytes, left: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(written)
    message = make_factory().cell(make_cell())
    sink = JsonLines(str(path), append=True)
    sink.publish(message)
    sink.close()
    assert path.read_bytes() == left + encode(message) + b"\n"


def test_an_existing_file_is_replaced_or_added_to(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    factory = make_factory()
    for append, lines in ((False, 1), (False, 1), (True, 2)):
        sink = JsonLines(str(path), append=append)
        sink.publish(factory.cell(make_cell()))
        sink.close()
        assert len(path.read_bytes().splitlines()) == lines


@pytest.mark.parametrize("path", ["missing/out.jsonl", "."])
def test_a_file_that_can_not_be_written(tmp_path: Path, path: str) -> None:
    with pytest.raises(LeukostreamError, match=r"--jsonl .*: got .*, expected a file that can be written: check"):
        JsonLines(str(tmp_path / path))


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    message = make_factory().cell(make_cell())
    sink = JsonLines("-")
    sink.publish(message)
    sink.close()
    print("still open")
    assert capfd.readouterr().out == encode(message).decode() + "\nstill open\n"


def test_standard_output_that_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    message = make_factory().cell(make_cell())
    JsonLines("-").publish(message)
    assert capsys.readouterr().out == encode(message).decode() + "\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_said_once_and_counted() -> None:
    faults: list[str] = []
    sink = JsonLines("/dev/full", on_fault=faults.append)
    for message in one_of_each(make_factory()):
        sink.publish(message)
    sink.close()
    assert sink.lost == 4
    assert len(faults) == 1
    assert faults[0].startswith("--jsonl /dev/full: got No space left on device: ")
    assert not sink.reader_gone


def test_a_disk_that_fills_in_the_middle_of_a_line_keeps_whole_lines(tmp_path: Path) -> None:
    """A limit on file size stands in for the disk: it cuts the second line, then is lifted."""
    path = tmp_path / "out.jsonl"
    script = MAKE_CELLS + (
        "import resource, sys\n"
        "sink = JsonLines(sys.argv[1], on_fault=lambda fault: print(fault))\n"
        "sink.publish(f.cell(make_cell(1)))\n"
        "limits = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700, limits[1]))\n"
        "sink.publish(f.cell(make_cell(2))); sink.publish(f.cell(make_cell(3)))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, limits)\n"
        "sink.publish(f.cell(make_cell(4)))\n"
        "print(sink.lost)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True)
    fault, lost = done.stdout.splitlines()
    assert "got File too large: lines are being lost" in fault
    assert lost == "2"
    assert [json.loads(line)["cell_id"] for line in path.read_text().splitlines()] == [1, 4]


def test_a_reader_of_standard_output_that_left_ends_it_quietly() -> None:
    script = MAKE_CELLS + (
        "import sys\n"
        "sink = JsonLines('-', on_fault=lambda fault: print(fault, file=sys.stderr))\n"
        "n = 0\n"
        "while not sink.reader_gone:\n"
        "    sink.publish(f.cell(make_cell()))\n"
        "sink.publish(f.cell(make_cell()))\n"
        "sink.close()\n"
        "print(sink.lost, file=sys.stderr)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["seq"] == 0
        process.stdout.close()
        said = process.stderr.read()
    assert (said, process.returncode) == (b"2\n", 0)


def test_a_reader_of_a_named_pipe_that_left_is_a_fault_and_its_successor_gets_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    faults: list[str] = []
    sink = JsonLines(str(path), on_fault=faults.append)
    factory = make_factory()
    sink.publish(factory.cell(make_cell(1)))
    assert json.loads(os.read(reader, 10_000))["cell_id"] == 1
    os.close(reader)
    sink.publish(factory.cell(make_cell(2)))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink.publish(factory.cell(make_cell(3)))
    assert json.loads(os.read(reader, 10_000))["cell_id"] == 3
    os.close(reader)
    sink.close()
    assert (sink.lost, sink.reader_gone) == (1, False)
    assert "Broken pipe" in faults[0]


def test_a_line_cut_in_a_pipe_is_ended_before_the_next(tmp_path: Path) -> None:
    """A pipe that nobody empties takes part of a line; what it took can't be taken back."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonLines(str(path))
    os.set_blocking(sink._file.fileno(), False)
    factory = make_factory()
    while sink.lost == 0:
        sink.publish(frame_message(factory, "x" * 20_000))  # longer than what a pipe takes whole
    taken = b""
    while chunk := _read(reader):
        taken += chunk
    sink.publish(factory.cell(make_cell(8)))
    lines = (taken + (_read(reader) or b"")).splitlines()
    os.close(reader)
    sink.close()
    assert json.loads(lines[-1])["cell_id"] == 8
    assert json.loads(lines[-3])["type"] == "frame"
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines[-2])


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return None
