"""Many jobs, each of them done once: with bounded concurrency, and a journal on disk."""
