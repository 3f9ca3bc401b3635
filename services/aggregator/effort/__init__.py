"""How many members are asked: when their answers are enough, and who is asked next."""
