"""The transport of frames: the inference thread and its connection."""
