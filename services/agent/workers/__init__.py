"""External workers: HTTP servers that users registered, served by whichever agent claims them."""
