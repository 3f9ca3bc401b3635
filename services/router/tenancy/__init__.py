"""Tenancy: what each tenant has in work, and how much more it may have."""
