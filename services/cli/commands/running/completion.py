"""`choir completion`: what a shell needs to complete the command line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from services.cli.commands.looking.overview import JsonFlag
from services.cli.shell.command_group import COMPLETION_VARIABLE
from services.cli.views.terminal import print_text

Shell = Literal["bash", "zsh", "fish"]

BASH = r"""_choir_completion() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" proposal
    local word="${line##*[[:space:]]}"
    COMPREPLY=()
    for proposal in $(env VARIABLE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
                      _TYPER_COMPLETE_ARGS="$line" "$1"); do
        COMPREPLY+=("${proposal%%$'\t'*}")
    done
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
    fi
}

complete -o default -F _choir_completion choir
""".replace("VARIABLE", COMPLETION_VARIABLE)
"""Typer's own hands words over as bash divides them, at each colon, and llama3.2:3b is then no name. This one
hands over the line, as for fish, and leaves out what bash takes for the words before the last colon."""


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
    as_json: JsonFlag = False,
) -> None:
    """Print a script with which a shell completes commands, options, models and strategies.

    bash: add `eval "$(choir completion bash)"` to ~/.bashrc.

    zsh: add `eval "$(choir completion zsh)"` to ~/.zshrc, after compinit.

    fish: `choir completion fish > ~/.config/fish/completions/choir.fish`

    Models are those of the running mesh.
    """
    print_text("script", script_for(shell), as_json)


def script_for(shell: Shell) -> str:
    """What the shell is to read."""
    if shell == "bash":
        return BASH
    from typer._completion_shared import get_completion_script  # typer prints it by an option of its own

    return get_completion_script(prog_name="choir", complete_var=COMPLETION_VARIABLE, shell=shell)
