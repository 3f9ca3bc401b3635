"""From OpenAI's fields to requests of the mesh."""
