"""What is asked, by whom and with which options, and what is kept of it."""
