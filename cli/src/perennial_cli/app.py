"""The command line: a table of commands whose modules are imported when they are called, so that `--help` is quick."""

from __future__ import annotations

import importlib
from collections.abc import MutableMapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from perennial_cli.commands import COMMANDS, Entry


class LazyGroup(TyperGroup):
    """Shows commands from the table, and imports a command's module only to run it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # For the help, for completion and for "did you mean": names and summaries, nothing that can run.
        self.commands: MutableMapping[str, Any] = {
            name: TyperCommand(name, help=entry.summary) for name, entry in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        entry = COMMANDS.get(name or "")
        return name, load(name, entry) if name and entry else found, rest


def load(name: str, entry: Entry) -> Any:
    """Import a command's module and make its command."""
    module = importlib.import_module(f"perennial_cli.commands.{entry.module}")
    app = getattr(module, "app", None)
    if not isinstance(app, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(getattr(module, "command", None) or getattr(module, entry.module))
    command = typer.main.get_command(app)
    command.name = name
    return command


def make_app() -> Any:
    """The command `perennial`."""
    app = typer.Typer(
        name="perennial",
        cls=LazyGroup,
        help="Continuous training that closes the loop: drift alert, retraining, gated rollout, rollback.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def perennial() -> None:
        """Continuous training that closes the loop: drift alert, retraining, gated rollout, rollback."""

    return typer.main.get_command(app)
