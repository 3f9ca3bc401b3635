"""Evaluating tokens: batches, contexts, samplers, grammars, hidden states."""
