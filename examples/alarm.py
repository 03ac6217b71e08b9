"""Say when a class goes beyond its limit: python examples/alarm.py tcp://127.0.0.1:5555 eosinophil 6"""

import sys

from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import DifferentialMessage

endpoint, class_name, limit_percent = sys.argv[1], sys.argv[2], float(sys.argv[3])
with Subscriber(endpoint, ["differential."]) as subscriber:
    for received in subscriber:
        message = received.message
        if not isinstance(message, DifferentialMessage):
            continue
        share = message.classes.get(class_name)
        if share is not None and share.low is not None and share.low > limit_percent:
            print(f"{message.source}: {class_name} {share.percent:.1f} % of {message.total} cells", flush=True)
            break
        if message.final:
            print(f"{message.source}: the slide ended, no alarm", flush=True)
            break
