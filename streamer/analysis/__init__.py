"""What a frame shows by itself: the models that look at it, its cells, its quality, its magnification.

Imports sources, the stage's preparation, the configuration and engines.
"""
