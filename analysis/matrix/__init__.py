"""`choir matrix`: every generator with every summarizer, measured through the mesh."""
