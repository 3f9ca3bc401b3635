"""Evaluations and load tests that are on the disk of the gateway's host."""
