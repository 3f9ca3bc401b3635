"""Events, traces and spans of the work."""
