"""Commands that are imported when they are typed, and help pages that fit a terminal of 80 columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

PACKAGE = "services.cli.commands"
COMPLETION_VARIABLE = "_CHOIR_COMPLETE"
"""With it in the environment a shell asks what to propose, instead of a person for a command."""
LONGEST_OPTION = 26
"""Wider names of options stand on a line of their own, above what they do."""
TYPE_NAMES = (
    (re.compile(r"<(?:list\[)?(?:int|int range)\]?>"), "N"),
    (re.compile(r"<(?:list\[)?(?:float|float range)\]?>"), "X"),
    (re.compile(r"<(?:list\[)?(?:path|Path|file|directory)\]?>"), "PATH"),
    (re.compile(r"<(?:list\[)?str\]?>"), "TEXT"),
    (re.compile(r"<([^<>]*\|[^<>]*)>"), r"\1"),
)
"""What typer calls the type of a value, and what people do."""
PLACE = re.compile(r"\{(\w+)\}")
"""How typer writes an argument that has to be given."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table of commands.

    `where` is its function, `wing.module:name` in `commands/`; the command stands under `heading` in
    `choir --help`, with `what` beside it. With `group` it has commands of its own: the function returns their
    application.
    """

    name: str
    where: str
    heading: str
    what: str
    group: bool = False

    def load(self) -> Callable[..., Any]:
        """The function; imports its module."""
        module, _, function = self.where.partition(":")
        loaded: Callable[..., Any] = getattr(import_module(f"{PACKAGE}.{module}"), function)
        return loaded


class HelpfulCommand(TyperCommand):
    """A command whose help page names values as people do, and shows no type where there is no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its parameters, whose defaults are taken as they are."""
        return [as_it_is(parameter) for parameter in super().get_params(ctx)]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS]`, then the arguments in capitals."""
        return [PLACE.sub(r"\1", piece).upper() for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options, each with what it does."""
        write_parameters(self, ctx, formatter)


def as_it_is(parameter: Any) -> Any:
    """The same parameter; where nothing was typed for it, its default is used without being checked.

    Typer builds a validator of pydantic for every parameter: a tenth of the start of `choir ask`.
    Help pages would import pydantic for nothing.
    """
    if "process_value" not in vars(parameter):
        check = parameter.process_value

        def process_value(ctx: Any, value: Any) -> Any:
            source = ctx.get_parameter_source(parameter.name)
            typed = getattr(source, "name", None) != "DEFAULT"
            return check(ctx, value) if typed or parameter.required else value

        parameter.process_value = process_value
    return parameter


class CommandTable(Mapping[str, Any]):
    """Commands by name; each is built, and its module imported, when it is looked up."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = _build(self._entries[name])
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _build(entry: Entry) -> Any:
    app = entry.load()() if entry.group else typer.Typer(add_completion=False, rich_markup_mode=None)
    if not entry.group:
        app.command(entry.name, cls=HelpfulCommand)(entry.load())
    built = typer.main.get_command(app)
    built.name = entry.name
    return built


class LazyGroup(TyperGroup):
    """A group of the commands in `entries`, with `start` as the last line of its help page."""

    entries: ClassVar[tuple[Entry, ...]] = ()
    start: ClassVar[str] = ""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = CommandTable(self.entries)  # type: ignore[assignment]

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options, whose defaults are taken as they are."""
        return [as_it_is(parameter) for parameter in super().get_params(ctx)]

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, without importing any."""
        return [entry.name for entry in self.entries]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Options, then the commands under their headings."""
        write_parameters(self, ctx, formatter)
        for heading in dict.fromkeys(entry.heading for entry in self.entries):
            with formatter.section(heading):
                formatter.write_dl([(e.name, e.what) for e in self.entries if e.heading == heading])
        if self.start:
            formatter.write_paragraph()
            formatter.write_text(self.start)


def command_group(
    commands: Iterable[tuple[str, Callable[..., None]]],
    what: str | None = None,
    alone: Callable[..., None] | None = None,
) -> typer.Typer:
    """A command that has `commands` of its own. Without one of them it runs `alone`, or shows its help page,
    which begins with `what`."""

    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    show_help.__doc__ = what
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(alone or show_help)
    for name, function in commands:
        app.command(name, cls=HelpfulCommand)(function)
    return app


def write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    """The arguments and options of a command, in two sections."""
    for kind, heading in (("argument", "Arguments"), ("option", "Options")):
        parameters = (p for p in command.get_params(ctx) if p.param_type_name == kind)
        records = [record for p in parameters if (record := p.get_help_record(ctx)) is not None]
        if records:
            said = argument_name if kind == "argument" else option_names
            with formatter.section(heading):
                formatter.write_dl([(said(names), what) for names, what in records], LONGEST_OPTION)


def argument_name(names: str) -> str:
    """`prompt <str>` as `PROMPT`, as in the line of usage."""
    name, _, value = names.partition(" ")
    return name.upper() if value else name


def option_names(names: str) -> str:
    """`--timeout <float range>` as `--timeout X`."""
    for pattern, name in TYPE_NAMES:
        names = pattern.sub(name, names)
    return names
