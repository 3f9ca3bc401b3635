"""The endpoints of the router."""
