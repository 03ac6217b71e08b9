"""What becomes of memory that a process frees, seen from outside."""

import subprocess
import sys

import pytest

from streamer.run.tuning import give_freed_memory_back

BLOCK = 96 << 20
"""More than the largest block that is kept for frames."""
PROGRAM = f"""
import numpy as np
from streamer.run import tuning

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

assert getattr(tuning, "{{setting}}")()
block = np.ones({BLOCK}, np.uint8)
held = resident()
del block
print(held - resident())
"""


@pytest.mark.skipif(not give_freed_memory_back(), reason="another C library than glibc")
@pytest.mark.parametrize(
    ("setting", "kept"),
    [("keep_all_freed_memory", True), ("keep_freed_memory", False), ("give_freed_memory_back", False)],
)
def test_a_block_larger_than_a_frame_is_kept_where_all_are(setting: str, kept: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setting=setting)], capture_output=True, text=True, check=True
    )
    assert (int(done.stdout) < BLOCK // 2) is kept


SCATTERED = """
import numpy as np
from streamer.run import tuning

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

assert tuning.keep_freed_memory()
blocks = [np.ones(1 << 20, np.uint8) for _ in range(96)]
held = resident()
del blocks[:-1]
kept = held - resident()
tuning.release_freed_memory()
print(kept, held - resident())
"""


@pytest.mark.skipif(not give_freed_memory_back(), reason="another C library than glibc")
def test_what_only_the_start_needed_is_given_back_where_freed_memory_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True)
    kept, released = map(int, done.stdout.split())
    assert kept < 16 << 20
    assert released > 64 << 20
