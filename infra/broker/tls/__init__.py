"""TLS of the embedded broker: the mesh's own certificate authority, and certificates that are renewed."""
