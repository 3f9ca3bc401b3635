"""Texts that are checked by what their prompts ask of them (IFEval): the checks, and the figures."""
