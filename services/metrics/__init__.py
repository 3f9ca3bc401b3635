"""The metrics service: every event becomes a row, and SQL for whoever asks."""
