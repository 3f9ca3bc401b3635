"""What clients may ask the router, one endpoint each."""
