"""Batches: the lines of a file, asked one by one, whichever gateways live and die meanwhile."""
