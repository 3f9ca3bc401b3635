"""Trials of a mesh of three hosts: under faults of every kind, or for hours; and what its streams say
afterwards."""
