"""A model across nodes: its plan, and what its stages tell one another."""
