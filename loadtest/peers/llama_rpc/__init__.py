"""llama.cpp's own way over several nodes, beside a pipeline of two stages: `just bench-peers --only rpc`."""
