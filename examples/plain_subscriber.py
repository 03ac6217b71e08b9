"""Everything, with pyzmq alone and nothing of leukostream: python examples/plain_subscriber.py tcp://127.0.0.1:5555"""

import json
import sys

import zmq

socket = zmq.Context().socket(zmq.SUB)
socket.connect(sys.argv[1])
socket.subscribe(b"")
while True:
    topic, header, *payloads = socket.recv_multipart()
    message = json.loads(header)
    print(topic.decode(), message["seq"], len(header), [len(payload) for payload in payloads], flush=True)
