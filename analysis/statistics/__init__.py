"""Statistics of an evaluation. Pure: scores in, small frozen results out; every seed is an argument.

The unit is the question. Repetitions of a question are folded into it (`questions.fold`) before
anything is tested or resampled, so asking one question five times never counts as five questions.
"""
