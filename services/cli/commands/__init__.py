"""One file for each command, or for a few that belong together. `services.cli.app` lists them all."""
