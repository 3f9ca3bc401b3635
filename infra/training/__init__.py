"""What made the demo models: facts, text, training, export, and what each scores."""
