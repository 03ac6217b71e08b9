"""A webhook: signed as Standard Webhooks says, posted until it is taken, by the next process too."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.base import LeukostreamError, UsageError
from streamer.bridge.addresses import address_of
from streamer.bridge.signature import PREFIX, Signer, signer_of
from tests.streamer.bridge.bridge_cases import differential, event, factory, run_bridge, session, streamer
from tests.streamer.network.service_cases import PATIENCE_S

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
standardwebhooks = pytest.importorskip("standardwebhooks", reason="standardwebhooks is not installed")

from streamer.bridge.webhook import PAUSES_S, WebhookTarget, result_id  # noqa: E402
from streamer.bridge.webhook_outbox import WebhookOutbox  # noqa: E402

SECRET = PREFIX + base64.b64encode(bytes(range(32))).decode()
OTHER = PREFIX + base64.b64encode(bytes(range(24))).decode()
URL = "https://lis.lab/results?token=abc"


class Receiver:
    """What is at the other end; answers by the number of the attempt."""

    def __init__(self, *answers: int | Exception, headers: dict[str, str] | None = None) -> None:
        self.answers = list(answers)
        self.headers = headers or {}
        self.requests: list[Any] = []

    def __call__(self, request: Any) -> Any:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, headers=self.headers)


class Clock:
    """Unix time that a test sets."""

    now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def webhook(
    receiver: Receiver,
    path: Path,
    *,
    clock: Callable[[], float],
    remarks: list[str] | None = None,
    key: str | None = SECRET,
) -> WebhookTarget:
    address = address_of(URL, insecure=False)
    return WebhookTarget(
        address,
        WebhookOutbox(path, str(address)),
        None if key is None else signer_of(key),
        httpx.AsyncClient(transport=httpx.MockTransport(receiver)),
        remark=([] if remarks is None else remarks).append,
        now_s=clock,
        jitter=lambda: 0.0,
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def ended(seq: int = 0) -> Any:
    make = factory(next_session_seq=seq)
    last = differential(make, 7, final=True)
    return event(make.end("finished", "the source has ended"), last)


def test_the_headers_are_those_of_the_specification() -> None:
    """Its example, and the two signatures of a receiver that goes over to another secret."""
    body = b'{"test": 2432232314}'
    signer = signer_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    both = signer_of(f"{SECRET}\n{OTHER}\n").headers("msg_1", 1614265330, body)["webhook-signature"].split(" ")
    each = [signer_of(key).headers("msg_1", 1614265330, body)["webhook-signature"] for key in (SECRET, OTHER)]
    assert both == each


@pytest.mark.parametrize("secret", ["geheim", "whsec_", "whsec_%%%", f"whsec_{base64.b64encode(b'x' * 23).decode()}"])
def test_what_is_no_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(UsageError, match=r"got what is none, expected whsec_") as refused:
        signer_of(secret)
    assert secret.removeprefix("whsec_") not in str(refused.value) or secret == "whsec_"
    assert "x" * 10 not in repr(Signer([b"x" * 24]))


def test_the_result_of_a_session_as_a_receiver_checks_it(tmp_path: Path) -> None:
    receiver = Receiver()
    import time

    with streamer() as server:
        server.publish(*session(factory(), cells=3))
        target = webhook(receiver, tmp_path / "outbox", clock=time.time)
        bridge = run_bridge(server.endpoint, target, tmp_path / "cursor")
    [request] = receiver.requests
    assert bridge.lost() == {}
    assert (request.method, str(request.url)) == ("POST", "https://lis.lab:443/results?token=abc".replace(":443", ""))
    assert request.headers["idempotency-key"] == request.headers["webhook-id"]
    assert "." not in request.headers["webhook-id"]
    told = standardwebhooks.Webhook(SECRET).verify(request.content, dict(request.headers))
    assert told == json.loads(request.content)
    assert set(told) == {"type", "timestamp", "data"}
    assert told["type"] == "session.ended"
    data = told["data"]
    assert (data["source"], data["key"]) == ("cam", f"slide-1.{data['end']['session_seq']}")
    assert (data["end"]["state"], data["differential"]["final"], data["differential"]["total"]) == ("finished", True, 3)


def test_it_is_posted_again_with_the_same_id_and_a_signature_of_its_own(tmp_path: Path) -> None:
    receiver, clock, remarks = Receiver(500, httpx.ConnectError("no route"), 302), Clock(), list[str]()
    starts = []

    async def run() -> None:
        target = webhook(receiver, tmp_path / "outbox", clock=clock, remarks=remarks)
        await target.open()
        await target.deliver(ended())
        for number, pause_s in enumerate((0.0, *PAUSES_S[:3])):
            clock.now_s += pause_s
            starts.append(clock.now_s)
            target._stored.set()  # the clock is ours: nothing else wakes it
            await until(
                lambda number=number: len(receiver.requests) == number + 1 and len(remarks) >= min(number + 1, 3)
            )
        await target.finish(PATIENCE_S)
        await target.close()

    asyncio.run(run())
    assert len({one.headers["webhook-id"] for one in receiver.requests}) == 1
    assert len({one.content for one in receiver.requests}) == 1
    assert [int(one.headers["webhook-timestamp"]) for one in receiver.requests] == [int(at) for at in starts]
    assert len({one.headers["webhook-signature"] for one in receiver.requests}) == 4
    assert [line.split("; ")[0].partition("got ")[2].partition(",")[0] for line in remarks] == [
        "status 500",
        "'no route'",
        "status 302",
    ]
    assert not any("abc" in line for line in remarks), "what stands behind ? may be a secret"


def test_another_process_posts_what_was_not_taken_and_never_again_what_was(tmp_path: Path) -> None:
    clock, first, second = Clock(), Receiver(503), Receiver()

    async def run(receiver: Receiver, *events: Any) -> None:
        remarks: list[str] = []
        target = webhook(receiver, tmp_path / "outbox", clock=clock, remarks=remarks)
        await target.open()
        for one in events:
            await target.deliver(one)
        await until(lambda: receiver.requests)
        await target.finish(PATIENCE_S)
        await target.close()

    asyncio.run(run(first, ended()))
    clock.now_s += PAUSES_S[0]
    asyncio.run(run(second))
    assert [one.headers["webhook-id"] for one in second.requests] == [result_id(ended())]
    third = Receiver()
    asyncio.run(run(third, ended(), ended(5)))  # the first one comes again, as after a cursor that was not written
    assert [one.headers["webhook-id"] for one in third.requests] == [result_id(ended(5))]


def test_who_asks_for_more_time_has_it(tmp_path: Path) -> None:
    receiver, clock, remarks = Receiver(429, headers={"retry-after": "600"}), Clock(), list[str]()

    async def run() -> None:
        target = webhook(receiver, tmp_path / "outbox", clock=clock, remarks=remarks)
        await target.open()
        await target.deliver(ended())
        await until(lambda: remarks)
        await target.close()

    asyncio.run(run())
    assert "is posted again in 600 s" in remarks[0]


def test_after_three_days_it_is_given_up_counted_and_stays_on_disk(tmp_path: Path) -> None:
    receiver, clock, remarks = Receiver(*[500] * 20), Clock(), list[str]()

    async def run() -> dict[str, int]:
        target = webhook(receiver, tmp_path / "outbox", clock=clock, remarks=remarks)
        await target.open()
        await target.deliver(ended())
        for number in range(len(PAUSES_S) + 1):
            await until(lambda number=number: len(remarks) == number + 1)
            clock.now_s += PAUSES_S[min(number, len(PAUSES_S) - 1)]
            target._stored.set()
        await target.finish(PATIENCE_S)
        await target.close()
        return target.lost()

    assert asyncio.run(run()) == {"given up": 1}
    assert len(receiver.requests) == len(PAUSES_S) + 1
    assert "was given up after 10 attempts" in remarks[-1]
    outbox = WebhookOutbox(tmp_path / "outbox", str(address_of(URL, insecure=False)))
    assert (outbox.count("given up"), outbox.count("waiting")) == (1, 0)
    outbox.close()


def test_who_wants_no_more_ends_the_bridge(tmp_path: Path) -> None:
    receiver = Receiver(410)
    with streamer() as server:
        server.publish(*session(factory(), cells=1))
        target = webhook(receiver, tmp_path / "outbox", clock=Clock())
        with pytest.raises(LeukostreamError, match="got status 410"):
            run_bridge(server.endpoint, target, tmp_path / "cursor")


def test_an_outbox_is_of_one_process_and_no_other_file(tmp_path: Path) -> None:
    outbox = WebhookOutbox(tmp_path / "outbox", "https://a/")
    with pytest.raises(LeukostreamError, match="got a file that another bridge uses"):
        WebhookOutbox(tmp_path / "outbox", "https://a/")
    outbox.close()
    (tmp_path / "text").write_text("a letter to a friend, who is no database at all, and long enough")
    with pytest.raises(LeukostreamError, match="expected a file that can be written"):
        WebhookOutbox(tmp_path / "text", "https://a/")
