"""What every command has to do with the shell: help pages, completion, exit codes, files."""
