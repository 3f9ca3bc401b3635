"""Commands that say who belongs to a mesh, and what they may."""
