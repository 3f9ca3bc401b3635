"""`just measured`: the figures of the READMEs, from benchmarks of the present code."""
