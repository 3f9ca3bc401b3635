"""Handover: what a new instance in a stage's place reads of the one before."""
