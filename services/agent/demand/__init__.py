"""Models of the store, each loaded when somebody asks for it, within one budget of memory."""
