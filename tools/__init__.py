"""Commands for people who train, measure and prepare; imports engines and streamer, nothing imports it."""
