"""Pictures to a streamer as imagezmq sends them, each again until it is answered; with pyzmq alone:
python examples/imagezmq_sender.py tcp://127.0.0.1:5556 fields/*.jpg"""

import json
import sys

import zmq

ANSWER_MS = 10_000  # longer than the analysis of a frame ever takes, and any pause
endpoint, paths = sys.argv[1], sys.argv[2:]
context = zmq.Context()
number = 0
while number < len(paths):
    with context.socket(zmq.REQ) as socket:  # one that got no answer can't be used again
        socket.setsockopt(zmq.SNDTIMEO, ANSWER_MS)
        socket.setsockopt(zmq.RCVTIMEO, ANSWER_MS)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        try:
            while number < len(paths):
                with open(paths[number], "rb") as file:
                    socket.send_multipart([json.dumps({"msg": number}).encode(), file.read()])
                socket.recv()
                number += 1
        except zmq.Again:
            print(f"{paths[number]}: no answer, sending it again", flush=True)
print(f"{number} pictures were taken", flush=True)
