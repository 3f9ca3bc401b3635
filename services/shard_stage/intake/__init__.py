"""The intake of tasks: pulled from the queue, or left by another stage 0, and answered once."""
