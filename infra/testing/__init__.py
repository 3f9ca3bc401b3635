"""Pytest plugins: a real broker, real services, the conditions of a test."""
