"""Evaluations, statistics, charts, reports, and questions to the event database."""
