"""Every white cell of a run as a line of CSV: python examples/csv_logger.py tcp://127.0.0.1:5555 cells.csv

Begins with the beginning of the slide, whenever it is started, and ends with it. A cell whose class changed has
a later line.
"""

import csv
import sys

from streamer.subscriber import Subscriber
from streamer.wire import CellMessage, DifferentialMessage

endpoint, path = sys.argv[1:]
with open(path, "w", newline="") as file, Subscriber(endpoint, ["cell.", "differential."], history=True) as subscriber:
    table = csv.writer(file)
    table.writerow(["time", "source", "cell_id", "class", "looks"])
    for received in subscriber:
        message = received.message
        if isinstance(message, CellMessage):
            table.writerow([message.published_utc, message.source, message.cell_id, message.class_, message.looks])
            file.flush()
        elif isinstance(message, DifferentialMessage) and message.final:
            break
    print(f"{subscriber.lost} messages were lost", flush=True)
