"""Choir beside its peers: the same work, on the same machine, in one run. `just bench-peers`.

Nothing of a peer is needed to run Choir. Each is installed from its package into an environment of its own
the first time, or built from source, started on loopback, measured, and stopped.
"""
