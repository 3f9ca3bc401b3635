"""What is told about the work: events, traces, spans."""
