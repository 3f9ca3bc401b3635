"""The charts of a load test, from its figures: times in seconds since its start, latencies in ms."""
