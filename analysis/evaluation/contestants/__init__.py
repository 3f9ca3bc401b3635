"""What every contestant made of every question, from kept answers: no model is asked."""
