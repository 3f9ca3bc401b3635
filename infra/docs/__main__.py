"""`python -m infra.docs`"""

from __future__ import annotations

import typer

from infra.docs.readmes import main

if __name__ == "__main__":
    typer.run(main)
