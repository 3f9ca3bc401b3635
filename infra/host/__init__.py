"""One host's part of the mesh: its processes, from start to end."""
