"""The process of a service: its start and its end, its background loops, its share of the machine."""
