"""How a request comes in: checked, planned, shared with equal ones, stored as one command."""
