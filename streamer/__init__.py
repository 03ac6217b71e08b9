"""Everything that happens in time, from the camera to the published differential."""
