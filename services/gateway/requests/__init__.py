"""From an HTTP request to one of the mesh, and back: models, ids, retries, cached results."""
