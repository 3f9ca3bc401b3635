"""Benchmarks of the store of models."""
