"""The paths about models: what there is, in detail, and what a client has the mesh do about it."""
