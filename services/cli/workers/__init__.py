"""External workers on the command line: tried out, imported, shown."""
