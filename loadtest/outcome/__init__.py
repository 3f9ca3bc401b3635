"""What a run comes to: figures, files, pages."""
