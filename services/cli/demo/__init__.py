"""What `choir demo` shows: a mesh of its own, questions, and a board where the answers appear."""
