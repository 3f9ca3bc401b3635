"""From results to OpenAI's words: outcomes, errors, server-sent events."""
