"""Backups of a mesh: its streams, its buckets and its event database."""
