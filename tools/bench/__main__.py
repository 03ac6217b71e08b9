"""`python -m tools.bench NAME`: what work costs on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.commands import dispatch

NAMES = {
    "pipeline": "a whole run: milliseconds a frame, memory, steps",
    "area": "what looking only at what is new saves, beside every frame",
    "batch": "what a batch of frames gains",
    "classifier": "milliseconds to name a cell, classifiers side by side",
    "precision": "float32, float16 and int8 side by side",
    "stage": "the tracker on real slides: error, islands, unique cells, milliseconds",
    "slide": "the map of a long slide",
    "journal": "the journal of a long slide",
    "probes": "/healthz beside slow HTTP clients",
    "lag": "how old the frames of a live stream are when they are used",
    "soak": "a camera for hours, unplugged again and again: frames, losses, memory",
    "wsi": "a whole slide: its count, memory, speed beside JPEG files of its tiles",
    "wire": "publishing and subscribing: rate, latency, a crowd",
    "chaos": "microscopes whose servers, network, Ray and own processes are killed and cut",
    "archive": "an archive over several workers, some of which are killed: equal to one by one, and how it scales",
    "joins": "memory while thousands of microscopes and subscribers join and leave",
    "review": "a correction until a subscriber has it, scrolling, the page of a report",
    "inference": "microscopes on inference servers beside the same in one process",
    "gpu": "everything that only a GPU can show",
    "rtx": "every shipped model through NVIDIA's builder, without a GPU",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status."""
    return dispatch("bench", NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
