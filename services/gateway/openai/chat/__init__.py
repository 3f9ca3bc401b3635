"""`POST /v1/chat/completions`: the body, the answer as one object, and as events."""
