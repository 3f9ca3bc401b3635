"""`choir validate`: would a mesh run here?"""

from __future__ import annotations

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.commands.running.host import ConfigOption
from services.cli.views.terminal import console, print_json


def validate(config: ConfigOption = None, as_json: JsonFlag = False) -> None:
    """Check configuration, broker, models, disk and memory, and say what to do."""
    from services.cli.setup.validation.checks import validate as look
    from services.cli.setup.validation.report import report

    findings = look(config)
    if as_json:
        print_json(findings)
    else:
        console().print(report(findings))
    if not findings.good:
        raise typer.Exit(1)
