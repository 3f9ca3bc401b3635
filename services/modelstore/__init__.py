"""The model store: keeps models on this host's disk, and fetches them from other hosts and from a hub."""
