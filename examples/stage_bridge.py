"""A camera and a motorised stage (ASI's serial commands, tenths of a µm) to a streamer; with pyzmq and OpenCV:
python examples/stage_bridge.py tcp://127.0.0.1:5556 /dev/ttyUSB0 0"""

import json
import sys

import cv2
import zmq

endpoint, port, camera = sys.argv[1:]
frames = cv2.VideoCapture(int(camera) if camera.isdigit() else camera)
with open(port, "r+b", buffering=0) as stage, zmq.Context() as context, context.socket(zmq.REQ) as sender:
    sender.connect(endpoint)
    number, (more, image) = 0, frames.read()
    while more:
        stage.write(b"W X Y\r")  # right after the grab, so that it is of this picture
        answer = b""
        while not answer.endswith(b"\n"):
            answer += stage.read(1)
        x, y = (int(tenths) / 10 for tenths in answer.split()[1:3])  # ":A 12345 -678"
        picture = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        more, image = frames.read()
        said = {"x_um": x, "y_um": y, "number": number, "end": not more}
        sender.send_multipart([json.dumps({"msg": json.dumps(said)}).encode(), picture])
        sender.recv()
        number += 1
print(f"{number} pictures were taken")
