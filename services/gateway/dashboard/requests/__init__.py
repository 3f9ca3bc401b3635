"""What was asked: lists of requests, and a page for each."""
