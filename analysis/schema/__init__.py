"""The tables of the event database, as SQL for people to read: generated from the models of the events."""
