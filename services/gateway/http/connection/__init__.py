"""Connections of clients: the listening socket, HTTP/1.1 on each, and how each is closed."""
