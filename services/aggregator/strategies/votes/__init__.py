"""Strategies that need no more than the answers and what is known of the agents: votes and their weights."""
