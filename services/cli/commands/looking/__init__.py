"""Commands that look at a mesh: what it does, did and has learnt."""
