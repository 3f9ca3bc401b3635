"""What takes long: adding models, and pulling them."""
