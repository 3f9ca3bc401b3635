"""Files: what clients upload for batches, and what batches leave. Any gateway serves any of them."""
