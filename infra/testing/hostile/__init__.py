"""What hostile users send: statements and options of generation, for tests and benchmarks."""
