"""Who belongs to a mesh: hosts that have joined, tenants and invites, and how the broker hears of them."""
