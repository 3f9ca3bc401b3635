"""The live view of a mesh."""
