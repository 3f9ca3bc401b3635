"""Benchmarks: `python -m loadtest.bench NAME`. Each compares Choir with something bare in the same run."""
