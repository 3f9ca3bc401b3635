"""What the demo models are shown: facts, sums, word problems and paragraphs, as conversations."""
