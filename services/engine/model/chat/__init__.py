"""Chat templates: how a conversation becomes a prompt, and how what a model writes is read."""
