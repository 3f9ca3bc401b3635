"""A new instance in a stage's place: what it reads of what was left."""
