"""How Choir runs: broker, streams, supervisor, demo models."""
