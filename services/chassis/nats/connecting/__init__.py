"""How the broker is reached: its address, what it has to prove, and what to do when nobody answers."""
