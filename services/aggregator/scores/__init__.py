"""Scores: what is learnt of agents, and how it is kept."""
