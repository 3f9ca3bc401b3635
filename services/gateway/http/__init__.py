"""HTTP: the listening socket, the body of a request, the stream of a reply, and who may speak."""
