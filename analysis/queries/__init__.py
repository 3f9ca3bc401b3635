"""The runner of shipped queries: asks a mesh, or Parquet files without one."""
