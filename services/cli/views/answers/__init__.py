"""Answers for people: of one model, of several side by side, of a chain; finished or as they grow."""
