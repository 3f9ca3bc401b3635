"""The documents of a batch: their files and texts, and what to do when one is longer than a context."""
