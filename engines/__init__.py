"""Models and how they run: no camera, no socket, no clock, no session."""
