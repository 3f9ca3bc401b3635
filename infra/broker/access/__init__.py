"""Who may come to the broker, and what they may do there."""
