"""What is wrong with a broker, and how it is told."""
