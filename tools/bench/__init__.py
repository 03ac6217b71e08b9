"""What work costs: `python -m tools.bench NAME --help`, a file a measurement."""
