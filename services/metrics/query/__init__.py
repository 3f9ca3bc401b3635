"""Statements of users (`choir.sql`), within their limits."""
