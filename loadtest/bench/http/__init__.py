"""Benchmarks of the gateway and its dashboard."""
