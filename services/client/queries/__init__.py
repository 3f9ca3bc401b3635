"""What clients ask the event database: the queries that come with Choir, and the waterfall of a request."""
