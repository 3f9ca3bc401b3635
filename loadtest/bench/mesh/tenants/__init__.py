"""Benchmarks of tenants: what their accounts cost, and what one costs its neighbour."""
