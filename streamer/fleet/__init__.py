"""Many microscopes at a glance: what each streamer publishes of itself, and its page."""
