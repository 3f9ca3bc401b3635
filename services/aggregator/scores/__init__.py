"""What is learnt of agents, and how it is kept."""
