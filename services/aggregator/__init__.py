"""The aggregator: asks the members of an ensemble, and decides from their answers."""
