"""Which mesh a program is to talk to: said, joined, or running on this host."""
