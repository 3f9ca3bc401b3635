"""What a model takes of memory: its weights, the cells of its cache, and what steps compute in."""
