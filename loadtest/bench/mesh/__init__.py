"""Benchmarks of the mesh: what it adds to a request, how it grows, and what its stores bear."""
