"""Continuous batching: which texts share a step, and the loop of steps of a whole model."""
