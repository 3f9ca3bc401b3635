"""Asking the questions of a benchmark: what is asked, of whom, and what is kept of it."""
