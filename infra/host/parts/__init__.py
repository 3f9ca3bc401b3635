"""What a host runs: its instances, and its parts of pipelines."""
