"""Retention: ends commands past their time, and forgets results that no room is left for."""
