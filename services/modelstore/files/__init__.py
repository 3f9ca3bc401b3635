"""Files on this host: those that are known, those that come, and ranges of them."""
