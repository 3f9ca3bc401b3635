"""Streams of chat completions and completions that can be taken up again after they have broken."""
