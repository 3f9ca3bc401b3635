"""SQL over the event database: questions, tables, charts, files."""
