"""Models from outside: a hub that speaks the protocol of Hugging Face, or a mirror of it."""
