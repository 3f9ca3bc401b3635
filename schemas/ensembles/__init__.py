"""Ensembles: their names, strategies and rounds, and what was decided, spared and learnt."""
