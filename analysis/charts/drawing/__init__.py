"""What all charts are drawn with: theme, marks, rows and columns, and how a chart becomes a file."""
