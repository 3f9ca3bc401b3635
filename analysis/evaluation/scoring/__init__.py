"""How good the contestants are, and what can be said of the difference."""
