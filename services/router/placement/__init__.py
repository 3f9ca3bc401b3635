"""Which node holds which layers of a model: a pure planner, and the part of the router that keeps to it."""
