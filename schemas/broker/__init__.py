"""What is on the broker: every stream, bucket and subject, who may use it, and what travels there."""
