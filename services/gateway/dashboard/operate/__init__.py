"""Changing the mesh from pages: workers, pipelines, keys and who belongs to the mesh."""
