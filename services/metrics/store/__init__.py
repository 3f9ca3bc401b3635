"""The event database: its file, tables and views, its Parquet files, and its retention."""
