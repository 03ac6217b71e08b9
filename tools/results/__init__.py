"""The one table of all systems: what they are, what they cost, how well they do."""
