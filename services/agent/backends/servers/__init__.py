"""Servers of other programs as backends: Ollama, and whatever speaks OpenAI's protocol."""
