"""Commands that ask, and that come back to what was asked."""
