"""The router: takes requests, stores each as one command, and hands back its result."""
