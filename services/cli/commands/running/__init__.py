"""Commands that run a mesh and what belongs to it."""
