"""Cuts of running pipelines follow what is measured: speeds of layers, when a cut moves, and its move."""
