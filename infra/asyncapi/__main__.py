"""`python -m infra.asyncapi`"""

from __future__ import annotations

import typer

from infra.asyncapi.document import main

if __name__ == "__main__":
    typer.run(main)
