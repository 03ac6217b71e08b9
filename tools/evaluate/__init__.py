"""What models reach: `python -m tools.evaluate MODEL`; the model's card says which task that is."""
