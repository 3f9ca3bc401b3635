"""Past nats-py: messages that are taken as they are read, and sent as they are written."""
