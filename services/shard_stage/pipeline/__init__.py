"""A stage's own work: sequences, slots, steps."""
