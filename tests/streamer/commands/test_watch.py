"""`watch` and `subscribe` over real sockets: when they end by themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import pytest

from streamer.cli import main
from streamer.commands.remote_commands import RemoteCommands
from streamer.dashboard import DashboardState, render
from streamer.network.publisher import Publisher
from streamer.network.silence import PATIENCE_NS, Waiting, waiting_lines
from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import NEW_SLIDE, AnyMessage, decode
from streamer.protocol.requests import Pause, SourceState
from tests.streamer.network.service_cases import PATIENCE_S, Served
from tests.streamer.protocol.message_cases import frame_message, make_differential, make_factory, make_health


@pytest.fixture
def server() -> Iterator[Served]:
    with Served(lambda: Publisher("tcp://127.0.0.1:*")) as server:
        yield server


class Command:
    """A command that runs on a thread of its own, subscribed when this returns."""

    def __init__(self, server: Served, *words: str) -> None:
        self.status: list[int] = []
        self.server = server
        command = [words[0], server.endpoint, *words[1:]]
        self.thread = threading.Thread(target=lambda: self.status.append(main(command)), daemon=True)
        self.thread.start()
        while not server.do(lambda publisher: publisher.wants("end", "cam")):
            pass

    def publish(self, messages: Iterable[AnyMessage]) -> None:
        self.server.publish(*messages)

    def over(self) -> bool:
        self.thread.join(PATIENCE_S)
        return self.status == [0]

    def goes_on(self) -> bool:
        self.thread.join(0.3)
        return self.thread.is_alive()


def test_watch_ends_with_the_last_source(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    cam, other = make_factory(), make_factory("other")
    watch = Command(server, "watch")
    watch.publish([cam.health(make_health()), other.health(make_health())])
    watch.publish([cam.differential(make_differential(4, final=True)), cam.end("finished", NEW_SLIDE)])
    watch.publish([other.differential(make_differential(2, final=True)), other.end("failed", "the stage fell down")])
    assert watch.goes_on()
    watch.publish([cam.differential(make_differential(5, final=True)), cam.end("finished", "end of the source")])
    assert watch.over()
    said = capsys.readouterr().out
    assert "differential of cam: 5 white cells" in said
    assert "other: failed: the stage fell down" in said


def test_watch_ends_with_the_final_differential_of_a_streamer_that_sends_no_end(
    server: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.commands.watch.END_WAIT_S", 0.05)
    factory = make_factory()
    watch = Command(server, "watch")
    counts = [factory.differential(make_differential(3)), factory.differential(make_differential(4, final=True))]
    watch.publish([*counts, factory.health(make_health())])
    assert watch.over()
    assert "differential of cam: 4 white cells" in capsys.readouterr().out


@pytest.mark.parametrize("topic", ["", "frame."])
def test_subscribe_until_the_end_has_all_up_to_it(
    server: Served, capfdbinary: pytest.CaptureFixture[bytes], topic: str
) -> None:
    factory = make_factory()
    subscribe = Command(server, "subscribe", "--topic", topic, "--until-end")
    messages = [frame_message(factory), frame_message(factory), factory.end("stopped", "by SIGINT")]
    subscribe.publish(messages)
    assert subscribe.over()
    lines = capfdbinary.readouterr().out.splitlines()
    assert [decode(line) for line in lines] == (messages if topic == "" else messages[:2])


def test_what_is_waited_for_is_said_and_after_a_while_what_may_be_wrong() -> None:
    waits_for = Waiting("tcp://10.0.0.7:5555", 0)
    assert waiting_lines(waits_for, PATIENCE_NS) == ["waiting for messages from tcp://10.0.0.7:5555"]
    later = waiting_lines(waits_for, PATIENCE_NS + 1)
    assert later[1] == "nothing came so far:"
    assert [word in " ".join(later) for word in ("--publish tcp://10.0.0.7:5555", "firewall", "--keys DIR")] == [
        True
    ] * 3
    assert max(map(len, waiting_lines(waits_for, PATIENCE_NS + 1, 40)[1:])) <= 40


def test_subscribe_says_on_standard_error_what_it_waits_for(
    server: Served, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.network.silence.PATIENCE_NS", -1)
    monkeypatch.setattr("streamer.commands.subscribe._SLICE_S", 0.01)
    subscribe = Command(server, "subscribe", "--count", "1")
    said = b""
    while b"--keys DIR" not in said:
        said += capfdbinary.readouterr().err
    subscribe.publish([frame_message(make_factory())])
    assert subscribe.over()
    out, err = capfdbinary.readouterr()
    assert len(out.splitlines()) == 1
    assert said.count(b"waiting for messages from " + server.endpoint.encode()) == 1
    assert err == b""


def test_a_screen_that_waits_says_so_and_the_first_message_takes_its_place() -> None:
    state = DashboardState(waits_for=Waiting("tcp://10.0.0.7:5555", 0))

    def screen() -> str:
        lines = render(state, 80, 24, PATIENCE_NS + 1).lines
        return "\n".join("".join(segment.text for segment in line) for line in lines)

    assert "waiting for messages from tcp://10.0.0.7:5555" in screen()
    assert "Does it encrypt?" in screen()
    state.update(make_factory().health(make_health()), now_ns=1)
    assert "waiting" not in screen()


def test_keys_are_commands_to_the_streamer_elsewhere(server: Served) -> None:
    answers: list[SourceState | str] = []
    server.do(lambda publisher: publisher.publish(make_factory().health(make_health())))
    with Subscriber(server.endpoint) as subscriber:
        commands = RemoteCommands(subscriber)
        assert "where it runs" in str(commands.stop())
        commands.give(Pause(id="1", run_id="r", source="cam"), answers.append)
        assert answers == []
        commands.serve()
    (answer,) = answers
    assert isinstance(answer, str)
    assert "may read only" in answer
