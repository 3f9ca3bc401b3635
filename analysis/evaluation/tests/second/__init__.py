"""A second implementation of an evaluation's figures, in plain numpy, from the formulas of the READMEs.

It imports nothing of ours and no library of statistics: what it agrees with was computed twice.
"""
