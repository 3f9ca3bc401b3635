"""`choir.sql`: statements of users, within their limits."""
