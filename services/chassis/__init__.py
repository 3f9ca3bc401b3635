"""What every service is built on: connect, work loop, leases, events, endpoints, logs, settings."""
