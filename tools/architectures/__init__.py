"""The networks in PyTorch, one a file, named as in the literature."""
