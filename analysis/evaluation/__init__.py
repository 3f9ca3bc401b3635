"""`choir eval`: asks the mesh the questions of a benchmark, keeps every answer, and says what can be said."""
