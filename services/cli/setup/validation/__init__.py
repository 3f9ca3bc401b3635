"""The checks of `choir validate`: one file for each subject; `checks.CHECKS` lists them."""
