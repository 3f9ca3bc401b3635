"""What llama.cpp's architectures ask of whoever cuts their models, and what slices say because of it."""
