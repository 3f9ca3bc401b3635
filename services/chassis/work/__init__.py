"""Commands: pulled, worked on, acknowledged, tried again, given up."""
