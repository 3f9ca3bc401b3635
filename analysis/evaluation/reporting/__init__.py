"""What is written of a run: tables, charts, LaTeX, the report."""
