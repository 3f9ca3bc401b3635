"""What was asked, and what became of it: for pages and for programs."""
