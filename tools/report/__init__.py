"""What is written from figures: the one table of all systems, the schemas, pictures. `python -m tools.report NAME`."""
