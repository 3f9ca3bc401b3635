"""The summarizer: takes an answer along a chain of models."""
