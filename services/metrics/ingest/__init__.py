"""From the EVENTS stream to rows."""
