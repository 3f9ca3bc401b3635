"""Hosts and service instances: who is there, what each serves and stores, and who may join."""
