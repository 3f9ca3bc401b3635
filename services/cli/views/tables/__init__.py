"""What the mesh tells of itself, as tables for people."""
