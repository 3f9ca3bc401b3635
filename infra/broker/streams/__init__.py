"""The streams, buckets and queues of the mesh: what they are to be, and who keeps them so."""
