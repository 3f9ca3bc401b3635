"""Choir's own question sets, in the formats of three public benchmarks."""
