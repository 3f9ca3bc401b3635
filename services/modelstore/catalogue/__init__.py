"""What a model is: where its files lie, and what they say of themselves."""
