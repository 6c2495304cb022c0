"""perennial ingest"""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    wait: Annotated[bool, typer.Option(help="Follow the run until it ends.")] = True,
) -> None:
    """Land and validate what is new at the sources, without training."""
    from perennial_cli.clients.controller import Controller
    from perennial_cli.commands.run import show
    from perennial_cli.embedded import connection
    from perennial_cli.paths import pipelines_dir
    from perennial_spec.load import discover

    discover(pipelines_dir()).get(name)
    platform = connection.load()
    show(platform, Controller(platform).announce_data(name, "asked for by hand"), wait=wait)
