"""A saturation sweep: where the mesh has no more to give."""
