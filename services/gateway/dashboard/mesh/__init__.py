"""The mesh on one page, live."""
