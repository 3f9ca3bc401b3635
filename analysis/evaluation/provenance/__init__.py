"""Where answers come from: which files of which models, of which commit, and which runs before."""
