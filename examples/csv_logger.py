"""Every white cell of a run as a line of CSV: python examples/csv_logger.py tcp://127.0.0.1:5555 cells.csv

Begins with the beginning of the slide, whenever it is started, and ends with it. A cell whose class changed has
a later line, one that turned out to be another cell or none has a later line with `counted` False.
"""

import csv
import sys

from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import CellMessage, DifferentialMessage

endpoint, path = sys.argv[1:]
with open(path, "w", newline="") as file, Subscriber(endpoint, ["cell.", "differential."], history=True) as subscriber:
    table = csv.writer(file)
    table.writerow(["time", "source", "cell_id", "class", "looks", "counted"])
    for received in subscriber:
        message = received.message
        if isinstance(message, CellMessage):
            cell = message.cell_id, message.class_, message.looks, message.counted
            table.writerow([message.published_utc, message.source, *cell])
            file.flush()
        elif isinstance(message, DifferentialMessage) and message.final:
            break
    print(f"{subscriber.lost} messages were lost", flush=True)
