"""The demo models: four GGUF files of two million parameters each, their names and checksums."""
