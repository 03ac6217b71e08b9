"""How well a model does: plain NumPy on predictions, and what predicts."""
