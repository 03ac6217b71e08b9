"""Sending over MLLP: acknowledged once, whatever happens to the line, the receiver and the sender."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

pytest.importorskip("hl7apy", reason="hl7apy is not installed")
pytest.importorskip("hl7", reason="the package hl7 is not installed")

from streamer.cli import main
from streamer.interop.delivery import Delivery
from streamer.interop.hl7_messages import Hl7Message, hl7_message
from streamer.interop.mllp import MllpClient, MllpError, Receiver, answer_of, receiver_of
from streamer.interop.outbox import Outbox, OutboxError
from tests.streamer.interop.hl7_receiver import HospitalSystem, cut_at_random, silent
from tests.streamer.interop.result_cases import result


def client(receiver):
    return MllpClient(receiver, timeout_s=20.0, commit_wait_s=0.05)


def impatient(receiver):
    return MllpClient(receiver, timeout_s=0.2, commit_wait_s=0.05)


def no_sleep(seconds):
    assert seconds > 0


def arrived(system, count):
    """Wait until so many messages have arrived whole, on whatever line."""
    while len(system.received) < count:
        time.sleep(0.01)


def deliver(path, messages, system, connect=client, attempts=5, sleep=no_sleep):
    receiver = Receiver("127.0.0.1", system.port)
    with Outbox(path) as outbox:
        stored = [outbox.put(receiver, one, "session", "oul") for one in messages]
        return list(Delivery(outbox, receiver, attempts, connect=connect, sleep=sleep).send(stored))


def small(number):
    return hl7_message("oul", result(number))


@pytest.mark.lengthy
def test_a_hundred_messages_over_a_line_that_is_cut_at_random_arrive_and_none_is_acknowledged_twice(tmp_path):
    messages = [small(number) for number in range(100)]
    size = len(messages[0].er7.encode())
    with HospitalSystem(cut=cut_at_random(1, 4 * size)) as system:
        answers = deliver(tmp_path / "sent", messages, system, attempts=50)
        assert [answer.code for _, answer in answers] == ["AA"] * 100
        assert [answer.control_id for _, answer in answers] == [one.control_id for one in messages]
        assert system.cuts > 25
        assert system.doubles  # some answers were lost on the way: at least once means that
        assert list(system.messages) == [one.control_id for one in messages]
        before = len(system.received)
        again = deliver(tmp_path / "sent", messages, system)
        assert [answer for _, answer in again] == [None] * 100
        assert len(system.received) == before
    with sqlite3.connect(tmp_path / "sent") as database:
        states = database.execute("SELECT DISTINCT state, code FROM messages").fetchall()
        assert states == [("acknowledged", "AA")]


def test_what_is_sent_again_is_the_same_to_the_byte(tmp_path):
    first = small(0)
    later = Hl7Message(first.control_id, first.er7 + "NTE|1||made later\r")
    patience = iter([0.2, 0.2, 20.0])

    def connect(receiver):
        return MllpClient(receiver, timeout_s=next(patience))

    with HospitalSystem(codes=lambda number: "AA" if number == 3 else None) as system:
        with pytest.raises(MllpError, match=r"'timed out', expected an acknowledgement.*given up after 1 attempts"):
            deliver(tmp_path / "sent", [first], system, connect, attempts=1)
        arrived(system, 1)
        sent = deliver(tmp_path / "sent", [later], system, connect, attempts=2, sleep=lambda _: arrived(system, 2))
        assert [(stored.attempts, answer.code) for stored, answer in sent] == [(1, "AA")]
        assert system.received == [first.control_id] * 3
        assert set(system.messages.values()) == {first.er7}
    with sqlite3.connect(tmp_path / "sent") as database:
        assert database.execute("SELECT attempts FROM messages").fetchall() == [(3,)]


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR"])
def test_what_is_refused_is_sent_again_only_when_asked_for(tmp_path, code):
    with HospitalSystem(codes=lambda number: code if number == 1 else "AA") as system:
        [(_, answer)] = deliver(tmp_path / "sent", [small(0)], system)
        assert (answer.code, answer.accepted) == (code, False)
        [(stored, answer)] = deliver(tmp_path / "sent", [small(0)], system)
        assert (stored.state, answer.code) == ("refused", "AA")


def test_a_commitment_counts_where_the_application_does_not_answer(tmp_path):
    with HospitalSystem(codes=lambda number: "CA") as system:
        [(_, answer)] = deliver(tmp_path / "sent", [small(0)], system)
        assert (answer.code, answer.accepted) == ("CA", True)
        [(_, answer)] = deliver(tmp_path / "sent", [small(0)], system)
        assert answer is None


def served(*answers):
    """A port where each line gets these bytes once it has sent something, and what it sent is passed over."""
    listener = socket.create_server(("127.0.0.1", 0))

    def connect(receiver):
        made = MllpClient(receiver, timeout_s=5.0, commit_wait_s=0.05)
        line, _ = listener.accept()
        for answer in answers:
            line.sendall(answer)
        line.shutdown(socket.SHUT_WR)
        lines.append(line)
        return made

    lines = [listener]
    return Receiver(*listener.getsockname()), connect, lines


def ack(code, control_id):
    return f"\x0bMSH|^~\\&|LIS||||20260101||ACK^R22^ACK|1|P|2.5.1\rMSA|{code}|{control_id}\r\x1c\r".encode()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([ack("AA", "{id}")], "AA"),
        ([ack("AA", "EARLIER"), ack("AE", "{id}")], "AE"),
        ([ack("CA", "{id}"), ack("AE", "{id}")], "AE"),
        ([ack("CA", "{id}"), ack("AA", "{id}")], "AA"),
        ([b"\r\n" + ack("AA", "{id}")], "AA"),
        ([ack("AA", "EARLIER")], r"end of the line"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n\x1c\r"], "expected a block that begins with <VT>"),
        ([b"\x0bMSH|^~\\&|LIS\r\x1c\r"], "expected an acknowledgement with an MSA segment"),
        ([ack("XX", "{id}")], "got the acknowledgement code 'XX'"),
        ([b""], "got the end of the line"),
        ([b"\x0b" + b"x" * (1 << 21)], "without an end"),
    ],
)
def test_what_a_receiver_may_answer(answers, expected):
    message = small(0)
    filled = [answer.replace(b"{id}", message.control_id.encode()) for answer in answers]
    receiver, connect, lines = served(*filled)
    try:
        with connect(receiver) as line:
            if len(expected) == 2:
                assert line.exchange(message).code == expected
            else:
                with pytest.raises(MllpError, match=expected):
                    line.exchange(message)
    finally:
        for one in lines:
            one.close()


def test_an_answer_in_the_words_of_its_receiver():
    text = b"MSH|^~\\&|LIS\rMSA|AE|X1\rERR|||207^Application internal error^HL70357|E||||no such specimen\r"
    answer = answer_of(text)
    assert (answer.code, answer.control_id, answer.text) == ("AE", "X1", "no such specimen")


@pytest.mark.parametrize(
    "address", ["", "lis:2575", "tcp://lis:2575", "mllp://lis", "mllp://:2575", "mllp://lis:99999", "mllp://lis:1/x"]
)
def test_an_address_that_is_none(address, walk, capsys):
    assert main(["send", str(walk), "--to", address]) == 2
    assert f"--to: got {address!r}, expected mllp://HOST:PORT" in capsys.readouterr().err


def test_an_address_with_colons_of_its_own():
    assert receiver_of("mllp://[::1]:2575") == Receiver("::1", 2575)
    assert str(receiver_of("mllp://[::1]:2575")) == "mllp://[::1]:2575"


def copied(walk, tmp_path):
    path = tmp_path / "slide.db"
    path.write_bytes(walk.read_bytes())
    return str(path)


def test_a_journal_is_sent_once_and_its_amended_result_again(walk, tmp_path, capsys):
    journal = copied(walk, tmp_path)
    with HospitalSystem() as system:
        to = f"mllp://127.0.0.1:{system.port}"
        assert main(["send", journal, "--to", to]) == 0
        first = capsys.readouterr().out
        assert f"acknowledged by {to} (AA)" in first
        assert main(["send", journal, "--to", to]) == 0
        assert "was acknowledged before (AA, 20" in capsys.readouterr().out
        assert len(system.received) == 1
        assert main(["send", journal, "--to", to, "--format", "oru", "--pseudonymise"]) == 0
        assert len(system.received) == 2
        assert "SPM|1|slide-" in list(system.messages.values())[1]


def test_a_refusal_is_one_line_and_status_1(walk, tmp_path, capsys):
    with HospitalSystem(codes=lambda number: "AR") as system:
        assert main(["send", copied(walk, tmp_path), "--to", f"mllp://127.0.0.1:{system.port}"]) == 1
    err = capsys.readouterr().err
    assert "got AR" in err
    assert err.count("\n") == 1


def test_nobody_there_is_one_line_and_status_1(walk, tmp_path, capsys, free_port):
    assert main(["send", copied(walk, tmp_path), "--to", f"mllp://127.0.0.1:{free_port}", "--attempts", "1"]) == 1
    err = capsys.readouterr().err
    assert "on connecting, expected a receiver that listens there" in err
    assert err.count("\n") == 1


def test_a_store_is_of_one_process_and_nothing_else_is_written_into(tmp_path):
    with Outbox(tmp_path / "sent"), pytest.raises(OutboxError, match="another process sends from"):
        Outbox(tmp_path / "sent")
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    (tmp_path / "text").write_text("no database" * 1000)
    (tmp_path / "folder").mkdir()
    before = (tmp_path / "other").read_bytes()
    for name, expected in (("other", "got another file"), ("text", "not a database"), ("folder", "unable to open")):
        with pytest.raises(OutboxError, match=expected):
            Outbox(tmp_path / name)
    assert (tmp_path / "other").read_bytes() == before


SENDER = """
import sys
from pathlib import Path
from streamer.interop.delivery import Delivery
from streamer.interop.mllp import Receiver
from streamer.interop.outbox import Outbox
from tests.streamer.interop.test_send import small
receiver = Receiver("127.0.0.1", int(sys.argv[2]))
with Outbox(Path(sys.argv[1])) as outbox:
    stored = [outbox.put(receiver, small(number), "session", "oul") for number in range(3)]
    for one, answer in Delivery(outbox, receiver).send(stored):
        print(answer.code, flush=True)
"""


@pytest.mark.lengthy
def test_a_sender_that_is_killed_goes_on_where_it_was(tmp_path):
    answers = iter(["AA", None])
    with HospitalSystem(codes=lambda number: next(answers, "AA")) as system:
        words = [sys.executable, "-c", SENDER, str(tmp_path / "sent"), str(system.port)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ}) as sender:
            assert sender.stdout.readline() == "AA\n"
            arrived(system, 2)  # and the answer to the second never comes
            sender.send_signal(signal.SIGKILL)
        messages = [small(number) for number in range(3)]
        codes = [None if answer is None else answer.code for _, answer in deliver(tmp_path / "sent", messages, system)]
        assert codes == [None, "AA", "AA"]
        first, second, third = (one.control_id for one in messages)
        assert system.received == [first, second, second, third]


def test_a_silent_receiver_leaves_the_rest_unsent(tmp_path):
    with HospitalSystem(codes=silent) as system:
        with pytest.raises(MllpError, match="stays stored: send again"):
            deliver(tmp_path / "sent", [small(0), small(1)], system, connect=impatient, attempts=2)
        arrived(system, 2)
        assert system.received == [small(0).control_id] * 2
