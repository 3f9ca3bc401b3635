"""Benchmarks of abuse: what others notice of somebody who means harm."""
