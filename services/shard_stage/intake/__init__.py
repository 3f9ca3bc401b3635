"""Where tasks enter a pipeline: pulled from the queue, or left by another stage 0."""
