"""Placement of a model over nodes: a pure planner, and the part of the router that keeps to its plans."""
