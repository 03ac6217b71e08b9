"""Every message of a run once and in order, also what was published before; with pyzmq alone:
python examples/complete_client.py tcp://127.0.0.1:5555"""

import json
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import zmq

ANSWER_MS = 5_000
Message = tuple[str, bytes, list[bytes]]  # topic, header, payloads

endpoint = sys.argv[1]
address, port = endpoint.rsplit(":", 1)
context = zmq.Context()
stream, service = context.socket(zmq.SUB), context.socket(zmq.DEALER)


def ask(request: str, **fields: Any) -> tuple[dict[str, Any], list[bytes]]:
    """The reply to a request, which is sent again until it is answered."""
    body = {"request": request, "version": "2.0", "id": uuid.uuid4().hex, **fields}
    while True:
        service.send_json(body)
        while service.poll(ANSWER_MS):
            head, *parts = service.recv_multipart()
            reply = json.loads(head)
            if reply["id"] == body["id"]:  # another one answers a request that was sent twice
                return reply, parts


def replay(session: str, after: int, until: int) -> Iterator[Message]:
    """The messages of a session after one and up to another."""
    while after < until:
        reply, parts = ask("replay", session=session, after=after, until=until, topics=[""])
        if reply["reply"] == "refused" and reply["code"] == "too old":
            states = ask("snapshot")[0]["sources"].values()
            oldest = [state["oldest_session_seq"] for state in states if state["session"] == session]
            kept_from = min(oldest[0] if oldest else until + 1, until + 1)
            print(f"lost: {kept_from - 1 - after} messages are no longer kept", file=sys.stderr)
            after = kept_from - 1
            continue
        if reply["reply"] == "refused":
            raise SystemExit(f"replay: {reply['code']}: {reply['reason']}")
        rest = iter(parts)
        for count in reply["messages"]:
            topic, header, *payloads = [next(rest) for _ in range(count)]
            yield topic.decode(), header, payloads
        after = reply["through"]


def messages() -> Iterator[Message]:
    """Until every source that was seen has ended."""
    stream.connect(endpoint)
    service.connect(f"{address}:{int(port) + 1}")
    stream.subscribe(b"")  # 1. subscribe: from here on the stream is kept for us
    reached: dict[str, int] = {}  # by session the last session_seq that was given
    running = set()
    for source, state in ask("snapshot")[0]["sources"].items():  # 2. where everything stands
        running.add(source)
        yield from replay(state["session"], -1, state["session_seq"])  # 3. what was published up to there
        reached[state["session"]] = state["session_seq"]
        if state["end"] is not None:
            running.discard(source)
    while running or not reached:
        topic, header, *payloads = stream.recv_multipart()  # 4. the stream, without what is known
        message = json.loads(header)
        if message["version"].split(".")[0] != "2":
            raise SystemExit(f"version: got {message['version']}, expected 2.x; get a newer client")
        session, number = message["session"], message["session_seq"]
        last = reached.get(session, -1)
        if number <= last:
            continue
        yield from replay(session, last, number - 1)  # 5. what the stream lost
        yield topic.decode(), header, payloads
        reached[session] = number
        running.add(message["source"])
        if message["type"] == "end" and message["reason"] != "new slide":
            running.discard(message["source"])


for topic, header, _ in messages():
    print(topic, header.decode(), flush=True)
context.destroy(linger=0)
