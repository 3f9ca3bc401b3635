"""Benchmarks of tenants: what accounts cost, what one costs its neighbour, and what one learns of another."""
