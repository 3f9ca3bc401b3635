"""The connection to the broker, and what is kept there: streams, buckets, pulled queues, endpoints."""
