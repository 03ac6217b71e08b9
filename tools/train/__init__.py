"""One loop and what it trains, a file a task: `python -m tools.train NAME --help`."""
