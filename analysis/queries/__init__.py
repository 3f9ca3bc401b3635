"""Questions to the event database, one in each file, and the runner that asks a mesh or Parquet files."""
