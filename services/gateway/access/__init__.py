"""Who asks, and what that one may do: API keys, their scopes and their limits."""
