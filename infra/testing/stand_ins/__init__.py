"""Stand-ins for what tests cannot have: a hub, a collector of spans, a stage that guesses as it is told."""
