"""Models that tests write: every architecture with few layers and random weights, and variants of files."""
