"""Benchmarks of inference: the engine, and pipelines of stages."""
