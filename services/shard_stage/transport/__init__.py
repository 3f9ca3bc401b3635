"""Frames between stages: the inference thread and its connection."""
