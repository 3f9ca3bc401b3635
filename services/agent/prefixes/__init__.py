"""Prefixes: a task whose beginning another agent keeps in its cache waits a moment for that agent."""
