"""Strategies that have the agents asked more than the question: again, for probabilities, for comparisons."""
