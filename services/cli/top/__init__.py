"""The live view of a mesh: what it looks like now, and how fast it was lately."""
