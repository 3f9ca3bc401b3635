"""One page about a time of a mesh: figures, charts and tables, with nothing to load from anywhere."""
