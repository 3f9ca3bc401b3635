"""The tables and views of the event database, as SQL: the tables are generated from the events."""
