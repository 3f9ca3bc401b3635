"""The contract of the mesh: subjects, messages, errors. No I/O; imports pydantic and the standard library."""
