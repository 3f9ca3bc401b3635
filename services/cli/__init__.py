"""The command line and the Python client: `from services.cli.client import Choir`."""
