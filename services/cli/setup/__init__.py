"""What `choir init` is made of: looking for servers of models, and a choir.toml that uses them."""
