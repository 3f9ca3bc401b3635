"""What is under load."""
