"""Files of models, as the mesh keeps them: chunks, who holds them, and fetching them from other hosts."""
