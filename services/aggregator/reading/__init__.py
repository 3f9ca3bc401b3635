"""The reading of answers: from a model's text to the answer that is voted on. Pure."""
