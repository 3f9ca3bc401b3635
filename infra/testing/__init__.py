"""Pytest plugins, and what tests of several packages share: a real broker, real services, a small mesh."""
