"""The nats-server that runs as a child: its program, configuration, store and log."""
