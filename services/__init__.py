"""The services of the mesh, one folder each, and what they are built on."""
