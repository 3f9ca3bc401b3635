"""Documents times prompts, spread over the mesh: what `choir batch` and `Choir.batch` are made of."""
