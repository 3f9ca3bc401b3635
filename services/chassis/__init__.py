"""The microservice chassis: connection, work loop, leases, events, endpoints, logs, settings."""
