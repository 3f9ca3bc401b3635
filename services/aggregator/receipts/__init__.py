"""Receipts: what an ensemble was decided from, given with its result and checked without a mesh."""
