"""The stage service: holds a range of a model's layers, as one stage of a pipeline."""
