"""perennial logs"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="A part, as `perennial status` names it, or `supervisor`.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on showing what is written, until Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines from the end.")] = 100,
    home: Annotated[Path | None, typer.Option(help="State folder; .perennial in the project by default.")] = None,
) -> None:
    """Show the log of one part."""
    from perennial_cli.embedded import logs
    from perennial_cli.embedded.home import find_home

    file = _log_file(find_home(home).logs, name)
    for line in logs.tail(file, lines):
        typer.echo(line)
    if not follow:
        return
    try:
        for line in logs.follow(file):
            typer.echo(line)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _log_file(folder: Path, name: str) -> Path:
    """The log of a part.

    Raises:
        PlatformError: there is none of that name.
    """
    from perennial_spec.errors import PlatformError, nearest

    names = sorted(file.stem for file in folder.glob("*.log")) if folder.is_dir() else []
    if name in names:
        return folder / f"{name}.log"
    guess = nearest(name, names)
    raise PlatformError(
        f"there is no log of {name!r}",
        where=str(folder),
        expected=f"one of {', '.join(names)}" if names else "a platform that has been started",
        next=f"did you mean {guess!r}?" if guess else "look with: perennial status",
    )
