"""Files that ship, from checkpoints: `python -m tools.export NAME --help`, a file a task."""
