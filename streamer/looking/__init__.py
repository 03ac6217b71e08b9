"""What of a frame is worth a look. coverage: where the slide was looked at. decision: which frames are looked at.
owed: which known cells are looked at again. plan: what follows for one frame. audit: the proof that nothing is lost.
budget: a share of the machine, and what is left out for it."""
