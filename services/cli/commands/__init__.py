"""One file for each command, or for a few that belong together. They are listed in `services.cli.app`."""
