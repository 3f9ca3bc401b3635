"""Tests of processes that are killed, paused and lost under load."""
