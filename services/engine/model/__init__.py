"""Model files and models: headers, slices, weights, vocabulary, chat templates."""
