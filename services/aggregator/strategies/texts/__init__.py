"""Strategies that make a text of the answers, and choose none."""
