"""What `choir validate` looks at. One file for each subject; `checks.CHECKS` lists them."""
