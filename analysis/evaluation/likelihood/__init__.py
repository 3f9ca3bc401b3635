"""Options that are scored by their log-likelihood, in place of an answer that a model writes."""
