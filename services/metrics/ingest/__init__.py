"""The ingest: from the EVENTS stream to rows."""
