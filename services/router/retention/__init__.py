"""What is ended and what is forgotten: commands past their time, results that no room is left for."""
