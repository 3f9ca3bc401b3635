"""What this instance has for pipelines, measured."""
