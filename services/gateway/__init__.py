"""The gateway: Ollama's and OpenAI's HTTP interfaces, for the clients that people have."""
