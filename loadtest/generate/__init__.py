"""Requests: which, when, and the processes that send them."""
