"""Asking from a page, and saying what was right."""
