"""The event database: its file, tables, views, and what leaves it."""
