"""Every event becomes a row: the event database, and SQL for whoever asks."""
