"""What `choir up` is made of: its log file, what of it people see, and the run from start to stop."""
