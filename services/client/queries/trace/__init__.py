"""The waterfall of one request: from rows of the event database to bars and named gaps."""
