"""Subscribers that miss something: real sockets, exact messages afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.network.connection import slices_ms
from streamer.network.gap_repair import GapRepair
from streamer.network.publisher import Publisher
from streamer.network.subscriber import Received, Subscriber
from streamer.network.subscriber_async import AsyncSubscriber
from streamer.protocol.messages import AnyMessage, DifferentialMessage, HealthMessage, encode, topic_of
from streamer.protocol.requests import ReplayReply, ReplayRequest, SnapshotReply, SnapshotRequest
from tests.streamer.network.service_cases import PATIENCE_S, Served, request_of, slide
from tests.streamer.protocol.message_cases import frame_message, make_differential, make_factory, make_health

LOCAL = "tcp://127.0.0.1:*"


def served(**options: object) -> Served:
    return Served(lambda: Publisher(LOCAL, **options))  # type: ignore[arg-type]


def joined(server: Served, topic: str = "frame.cam") -> None:
    while not server.do(lambda publisher: publisher.wants(*topic.split("."))):
        pass


def lose(server: Served, messages: Iterable[AnyMessage]) -> None:
    """Published while the stream reaches nobody: only the window has them."""

    def job(publisher: Publisher) -> None:
        outgoing = publisher._outgoing
        prefixes, outgoing._prefixes = outgoing._prefixes, ()
        for message in messages:
            publisher.publish(message)
        outgoing._prefixes = tuple({*outgoing._prefixes, *prefixes})

    server.do(job)


def parts_of(message: AnyMessage) -> list[bytes]:
    return [topic_of(message).encode(), encode(message)]


def until(subscriber: Subscriber, last: AnyMessage) -> list[Received]:
    """All that comes up to a message."""
    got = []
    while not got or got[-1].message != last:
        received = subscriber.receive(PATIENCE_S)
        assert received is not None
        got.append(received)
    return got


@pytest.mark.parametrize("topics", [[""], ["cell.", "differential."], ["frame.cam"]])
def test_what_was_missed_comes_again_in_order(topics: list[str]) -> None:
    messages = slide(make_factory(), 90)
    with served() as server, Subscriber(server.endpoint, topics) as subscriber:
        joined(server, "differential.cam")
        server.publish(*messages[:20])
        lose(server, messages[20:100])
        server.publish(*messages[100:120])
        lose(server, messages[120:130])
        server.publish(*messages[130:])
        wanted = [m for m in messages if f"{type(m).__struct_config__.tag}.cam".startswith(tuple(topics))]
        got = until(subscriber, wanted[-1])
        assert [received.message for received in got] == wanted
        assert [received.raw_header for received in got] == [encode(m) for m in wanted]
        assert subscriber.lost == 0
        assert subscriber.replayed == sum(received.replayed for received in got) > 10
        assert subscriber.state() == [m for m in messages if isinstance(m, DifferentialMessage)][-1]


def test_the_last_of_a_topic_is_missed_and_health_tells() -> None:
    factory = make_factory()
    with served() as server, Subscriber(server.endpoint, ["differential."]) as subscriber:
        joined(server, "differential.cam")
        server.publish(first := factory.differential(make_differential(1)))
        lose(server, [last := factory.differential(make_differential(2, final=True))])
        server.publish(factory.health(make_health()))
        assert [received.message for received in until(subscriber, last)] == [first, last]
        assert subscriber.state("cam") == last


def test_who_joins_late_may_have_it_all_from_the_beginning() -> None:
    messages = slide(make_factory(), 200)
    with served() as server:
        server.publish(*messages)
        with Subscriber(server.endpoint, history=True) as subscriber:
            last = next(m for m in reversed(messages) if isinstance(m, HealthMessage))
            got = until(subscriber, last)
            assert sorted(r.message.session_seq for r in got) == list(range(last.session_seq + 1))
            assert subscriber.lost == 0


@pytest.mark.parametrize("replay", [True, False])
def test_what_was_published_before_joining_is_no_loss(replay: bool) -> None:
    messages = slide(make_factory(), 60)
    health = [number for number, message in enumerate(messages) if isinstance(message, HealthMessage)]
    for first in (health[2], health[2] + 1, health[3] - 1):  # the first health to come is the third or the fourth
        steps = GapRepair([""], replay=replay, history=False)
        for message in messages[first:]:
            assert list(steps.take(parts_of(message))) == []
        assert [received.message for received in steps.ready] == messages[first:]
        assert [received.lost_before for received in steps.ready] == [0] * len(steps.ready)


def test_health_messages_missed_after_joining_come_again_and_those_before_are_no_loss() -> None:
    messages = slide(make_factory(), 60)
    third, fourth = [number for number, message in enumerate(messages) if isinstance(message, HealthMessage)][2:4]
    core = GapRepair([""], replay=True, history=False)
    for message in messages[third - 8 : third - 2]:
        assert list(core.take(parts_of(message))) == []
    steps = core.take(parts_of(messages[fourth]))
    request = next(steps)
    assert isinstance(request, ReplayRequest)
    assert (request.after < third - 2, request.until) == (True, fourth - 1)
    missed = messages[request.after + 1 : fourth]
    reply = ReplayReply(
        id=request.id, run_id="run-1", session="slide-1", through=fourth - 1, last=fourth, messages=[2] * len(missed)
    )
    with pytest.raises(StopIteration):
        steps.send((reply, [part for message in missed for part in parts_of(message)]))
    assert [received.message for received in core.ready] == messages[third - 8 : fourth + 1]
    assert core.lost == 0


def test_a_publisher_that_answers_again_after_a_silence_is_asked_again() -> None:
    factory = make_factory()
    core = GapRepair([""], replay=True, history=False)
    assert list(core.take(parts_of(frame_message(factory)))) == []
    asked = []
    for _ in range(4):
        frame_message(factory)  # missed
        asked.append(len(list(core.take(parts_of(frame_message(factory))))))  # no reply to any
    assert (asked, core.lost) == ([3, 0, 0, 0], 4)
    for _ in range(30):
        assert list(core.take(parts_of(factory.health(make_health())))) == []
    frame_message(factory)
    steps = core.take(parts_of(frame_message(factory)))
    assert isinstance(next(steps), ReplayRequest)


def test_a_reply_that_comes_late_is_taken() -> None:
    factory = make_factory()
    core = GapRepair([""], replay=True, history=False)
    messages = [frame_message(factory) for _ in range(3)]
    assert list(core.take(parts_of(messages[0]))) == []
    steps = core.take(parts_of(messages[2]))
    first = next(steps)
    assert steps.send(None) == first  # so a reply to the first one is a reply to the second
    reply = ReplayReply(id=first.id, run_id="run-1", session="slide-1", through=1, last=2, messages=[2])
    with pytest.raises(StopIteration):
        steps.send((reply, parts_of(messages[1])))
    assert ([received.message for received in core.ready], core.lost) == (messages, 0)


def test_a_wait_that_is_interrupted_by_a_stop_goes_on_after_it() -> None:
    assert list(slices_ms(0.12)) == [50, 50, 20]
    assert list(slices_ms(0.0)) == [1]


def test_what_the_window_no_longer_has_is_counted_and_the_rest_comes() -> None:
    messages = slide(make_factory(), 400)
    with served(window_max_bytes=100_000) as server, Subscriber(server.endpoint) as subscriber:
        joined(server)
        server.publish(*messages[:20])
        lose(server, messages[20:-1])
        server.publish(messages[-1])
        got = until(subscriber, messages[-1])
        oldest = len(messages) - sum(received.replayed for received in got) - 1
        assert 20 < oldest < len(messages) - 10
        assert [r.message for r in got] == messages[:20] + messages[oldest:]
        assert subscriber.lost == sum(received.lost_before for received in got) == oldest - 20
        assert subscriber.state() == [m for m in messages if isinstance(m, DifferentialMessage)][-1]


def test_a_new_run_of_a_new_slide_is_told_and_comes_whole() -> None:
    second = make_factory(run_id="run-2")
    second.session = "slide-2"
    before, after = slide(make_factory(run_id="run-1"), 20), slide(second, 30)
    with served() as server, Subscriber(server.endpoint) as subscriber:
        joined(server)
        server.publish(*before)
        until(subscriber, before[-1])
        lose(server, after[:25])
        server.publish(*after[25:])
        got = until(subscriber, after[-1])
        assert [received.message for received in got] == after
        assert [received.restarted for received in got] == [True] + [False] * (len(after) - 1)
        assert (subscriber.restarts, subscriber.lost) == (1, 0)


def test_a_resumed_session_goes_on_without_a_repeat() -> None:
    before = slide(make_factory(run_id="run-1"), 20)
    after = slide(make_factory(run_id="run-2", next_session_seq=len(before)), 30, first=20)
    with served() as server, Subscriber(server.endpoint) as subscriber:
        joined(server)
        server.publish(*before)
        until(subscriber, before[-1])
        lose(server, after[:25])
        server.publish(*after[25:])
        assert [received.message for received in until(subscriber, after[-1])] == after
        assert subscriber.lost == 0


def taken(core: GapRepair, message: AnyMessage, journal: list[AnyMessage], answered: Iterator[bool]) -> None:
    """Received, while whoever publishes it has all of `journal` and answers or not."""
    steps = core.take(parts_of(message))
    with suppress(StopIteration):
        request = next(steps)
        while True:
            if not next(answered, True):
                request = steps.send(None)
            elif isinstance(request, ReplayRequest):
                last = len(journal) - 1
                through = last if request.until is None else request.until
                found = journal[request.after + 1 : through + 1]
                reply = ReplayReply(
                    id=request.id,
                    run_id=message.run_id,
                    session="slide-1",
                    through=through,
                    last=last,
                    messages=[2] * len(found),
                )
                request = steps.send((reply, [part for one in found for part in parts_of(one)]))
            else:
                request = steps.send((SnapshotReply(id=request.id, run_id=message.run_id, sources={}), ()))


@given(st.data())
def test_whatever_is_lost_and_whoever_does_not_answer_nothing_comes_twice(data: st.DataObject) -> None:
    runs = [slide(make_factory(run_id="run-0"), 12)]
    for number in (1, 2):
        so_far = sum(map(len, runs))
        runs.append(slide(make_factory(run_id=f"run-{number}", next_session_seq=so_far), 12, first=12 * number))
    journal = [message for run in runs for message in run]
    comes = data.draw(st.lists(st.booleans(), min_size=len(journal), max_size=len(journal)))
    answered = iter(data.draw(st.lists(st.booleans(), max_size=40)))
    core = GapRepair(
        data.draw(st.sampled_from([[""], ["cell."], ["frame.cam", "differential."]])), replay=True, history=False
    )
    for number, message in enumerate(journal):
        if comes[number]:
            taken(core, message, journal[: number + 1], answered)
    numbers = [received.message.session_seq for received in core.ready]
    assert len(numbers) == len(set(numbers))


def test_a_new_slide_in_the_same_run_is_no_loss() -> None:
    first = make_factory()
    second = make_factory()
    second.session = "slide-2"
    messages = slide(first, 20)
    second.go_on_from(first)
    messages += slide(second, 20)
    with served() as server, Subscriber(server.endpoint) as subscriber:
        joined(server)
        server.publish(*messages[:10])
        lose(server, messages[10:50])
        server.publish(*messages[50:])
        assert [received.message for received in until(subscriber, messages[-1])] == messages
        assert (subscriber.lost, subscriber.restarts) == (0, 0)


def test_only_the_newest_for_who_asks() -> None:
    messages = slide(make_factory(), 60)
    with served() as server, Subscriber(server.endpoint, ["frame.", "cell."], newest_only=True) as subscriber:
        joined(server)
        server.publish(*messages)
        newest = {"frame.cam": 59, "cell.cam": 19}
        got: dict[str, int] = {}
        read = 0
        while got != newest:
            received = subscriber.receive(PATIENCE_S)
            assert received is not None
            got[received.topic] = received.message.seq
            read += 1
        assert read + subscriber.passed_over == 80


def test_asking_for_a_snapshot() -> None:
    messages = slide(make_factory(), 30)
    with served() as server:
        server.publish(*messages)
        with Subscriber(server.endpoint, ["cell."]) as subscriber:
            reply = subscriber.ask(request_of(SnapshotRequest))
            assert isinstance(reply, SnapshotReply)
            assert reply.sources["cam"].session_seq == len(messages) - 1
            subscriber.refresh()
            assert subscriber.state() == reply.sources["cam"].differential


def test_a_publisher_that_does_not_answer() -> None:
    with Subscriber("tcp://127.0.0.1:9", reply_timeout_s=0.01) as subscriber:
        assert subscriber.ask(request_of(ReplayRequest, session="s", after=-1, topics=[""])) is None
        subscriber.refresh()
        assert subscriber.state() is None


def test_the_same_with_asyncio() -> None:
    messages = slide(make_factory(), 90)

    async def receive(endpoint: str, ready: Callable[[], None]) -> None:
        async with AsyncSubscriber(endpoint, timeout_s=PATIENCE_S) as subscriber:
            publishing = asyncio.get_running_loop().run_in_executor(None, ready)
            got = []
            async for received in subscriber:
                got.append(received.message)
                if received.message == messages[-1]:
                    break
            await publishing
            assert got == messages
            assert (subscriber.lost, subscriber.state()) == (
                0,
                [m for m in messages if isinstance(m, DifferentialMessage)][-1],
            )
            assert isinstance(await subscriber.ask(request_of(SnapshotRequest)), SnapshotReply)
            assert subscriber.replayed >= 60

    with served() as server:

        def publish() -> None:
            joined(server)
            server.publish(*messages[:20])
            lose(server, messages[20:80])
            server.publish(*messages[80:])

        asyncio.run(receive(server.endpoint, publish))
