"""`choir completion`: what a shell needs to complete the command line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from services.cli.command_group import COMPLETION_VARIABLE

Shell = Literal["bash", "zsh", "fish"]


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print a script with which a shell completes commands, options, models and strategies.

    bash: add `eval "$(choir completion bash)"` to ~/.bashrc.

    zsh: add `eval "$(choir completion zsh)"` to ~/.zshrc, after compinit.

    fish: `choir completion fish > ~/.config/fish/completions/choir.fish`

    Models are those of the running mesh.
    """
    from typer._completion_shared import get_completion_script  # typer prints it by an option of its own

    typer.echo(get_completion_script(prog_name="choir", complete_var=COMPLETION_VARIABLE, shell=shell))
