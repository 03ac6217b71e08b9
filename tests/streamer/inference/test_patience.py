"""How long the questions of one frame wait together for servers that say nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from streamer.inference.dispatch import LEAST_PATIENCE_MS
from streamer.inference.patience import SAME_FRAME_S, Patience, next_frame
from streamer.inference.wire import (
    InferRequest,
    PreparedReply,
    PrepareRequest,
    ServedModel,
    Spec,
    StatusReply,
    decode_request,
    encode,
)
from tests.streamer.inference.served import ENGINE, INPUTS, OUTPUTS, Asking, wait_for

MS = 1_000_000


def test_what_was_waited_is_taken_off_what_the_next_question_waits() -> None:
    patience = Patience(1200.0)
    assert patience.left_ms(0) == 1200.0
    patience.waited(0, 500 * MS)
    assert patience.left_ms(510 * MS) == 700.0
    patience.waited(600 * MS, 1300 * MS)
    assert patience.left_ms(1310 * MS) == LEAST_PATIENCE_MS
    first_is_over = 500 * MS + round(SAME_FRAME_S * 1e9) + 1
    assert patience.left_ms(first_is_over) == 500.0
    assert patience.left_ms(first_is_over + round(SAME_FRAME_S * 1e9)) == 1200.0


def test_the_next_frame_has_all_of_it_and_other_threads_have_their_own() -> None:
    patience = Patience(1000.0)
    patience.waited(0, 900 * MS)  # answered, late
    other = threading.Thread(target=next_frame)
    other.start()
    other.join()
    assert patience.left_ms(910 * MS) == 100.0
    next_frame()
    assert patience.left_ms(920 * MS) == 1000.0


def test_a_short_patience_is_not_made_longer() -> None:
    patience = Patience(20.0)
    patience.waited(0, 20 * MS)
    assert patience.left_ms(21 * MS) == 20.0


@contextmanager
def hanging(asked: list[float]) -> Iterator[str]:
    """The address of a server that says how it does, loads engines and never answers; `asked` gets how long each
    question would wait, in milliseconds."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    over = threading.Event()
    status = StatusReply(
        server=f"s{port}",
        release="1",
        models=(ServedModel(ENGINE.sha256, "scripted", "classifier"),),
        draining=False,
        uptime_s=1.0,
        waiting=0,
        queue_age_ms=0.0,
        answered=0,
        faults={},
    )

    def run() -> None:
        while not over.is_set():
            if not socket.poll(20):
                continue
            asker, header, *_ = socket.recv_multipart()
            request = decode_request(header)
            if isinstance(request, InferRequest):
                asked.append(request.within_ms)
            elif isinstance(request, PrepareRequest):
                inputs, outputs = (tuple(map(Spec.of, specs)) for specs in (INPUTS, OUTPUTS))
                loaded = PreparedReply(
                    server=status.server, engine=request.engine, backend="none", inputs=inputs, outputs=outputs
                )
                socket.send_multipart([asker, encode(loaded)])
            else:
                socket.send_multipart([asker, encode(status)])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        over.set()
        thread.join()
        socket.close(0)
        context.term()


def test_a_second_server_that_hangs_does_not_cost_the_same_frame_as_much_again() -> None:
    """The detector's question and the classifier's went to one such server each: a microscope stood still for 3.2 s."""
    asked: list[float] = []
    with hanging(asked) as one, hanging(asked) as other, Asking(one, other, give_up_ms=300.0) as asking:
        assert asking.infer(1) == [12.0]
        first, before = asked[0], len(asked)
        wait_for(lambda: asking.infer(2) == [24.0] and len(asked) > before)  # both are there
        assert 250.0 < first <= 300.0
        assert all(within_ms <= LEAST_PATIENCE_MS for within_ms in asked[before:])
        local = len(asking.local.calls)
        assert asking.infer(3) == [36.0]
        assert local >= 2
        assert len(asking.local.calls) == local + 1
