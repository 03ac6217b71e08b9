"""The demo counts what is on its slide: real models, the simulated slide, the truth that it knows."""

import json
import subprocess
import sys
from collections import Counter

from streamer.commands.demo import SOURCE_UNWATCHED
from streamer.commands.demo_truth import MOST_OF_A_CELL_PX
from streamer.sources import parse_source
from streamer.sources.simulated import SlideParameters, VirtualSlide


def test_the_demos_differential_agrees_with_the_truth_within_its_limits(tmp_path):
    out = tmp_path / "demo.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "demo", "--jsonl", out],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    messages = [json.loads(line) for line in out.read_text().splitlines()]
    final = [message for message in messages if message["type"] == "differential"][-1]
    assert final["final"]
    frames = [message["frame_id"] for message in messages if message["type"] == "frame" and message["accepted"]]
    slide = VirtualSlide(SlideParameters.parse(parse_source(SOURCE_UNWATCHED).target))
    whole = slide.white_cells_seen(frames)
    assert abs(final["total"] - len(whole)) <= max(1, 0.05 * len(whole))  # those cut by an edge are in no total
    seen = Counter(cell.class_name for cell in slide.white_cells_seen(frames, beyond_px=MOST_OF_A_CELL_PX).values())
    for name, share in final["classes"].items():
        assert share["low"] <= 100 * seen[name] / seen.total() <= share["high"], name
    assert "differential of slide" in done.stdout
    assert "\nlimits are of sampling only" in done.stdout
    compared, percents, within = done.stdout.splitlines()[-3:]
    assert f"{len(whole)} white cells lay whole in the frames used, {final['total']} were counted" in compared
    share = final["classes"]["lymphocyte"]["percent"]
    assert f"lymphocyte {100 * seen['lymphocyte'] / seen.total():.1f} and {share:.1f}" in percents
    named = [name for name, share in final["classes"].items() if share["count"] or seen[name]]
    assert within.endswith(f"for {len(named)} of {len(named)} classes")
    assert "queue full" not in done.stdout + done.stderr
