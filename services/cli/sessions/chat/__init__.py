"""What `choir chat` is made of: the conversation, its slash commands, and the session on a terminal."""
