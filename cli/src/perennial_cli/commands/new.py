"""`perennial new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    name: Annotated[str, typer.Argument(help="Name of the pipeline: lower case, digits and dashes.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="A csv, json or parquet file (a sample) to write the spec from.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="The column to predict; guessed from its name when not given.")
    ] = None,
    timestamp: Annotated[str | None, typer.Option(help="The column that says when a row was known; guessed.")] = None,
    entity: Annotated[str | None, typer.Option(help="The column that identifies a row; guessed.")] = None,
    pipelines: Annotated[
        Path | None, typer.Option(help="Folder of all pipelines.", envvar="PERENNIAL_PIPELINES_DIR")
    ] = None,
) -> None:
    """Write a new pipeline's folder: pipeline.yaml, features.py, README.md.

    With --data, columns and their roles are read from a file, and `perennial check NAME` passes at once:

        perennial new churn --data customers.csv --label churned
    """
    import re

    from perennial_cli.paths import pipelines_dir
    from perennial_cli.scaffold.guess import Column, Guess, guess, read_columns
    from perennial_cli.scaffold.write import write_pipeline
    from perennial_spec.errors import SpecError

    if not re.fullmatch(r"[a-z](-?[a-z0-9])*", name) or len(name) > 40:
        raise SpecError(
            f"{name!r} cannot be a pipeline's name",
            expected="at most 40 of a-z, 0-9 and single dashes, as in flight-delays",
        )
    if data is None:
        at, key, what = timestamp or "created_at", entity or "id", label or "label"
        guessed = Guess(at, key, what, "xgboost.classifier", (Column("x", "DOUBLE", 0, False),))
        location = f"${{PERENNIAL_LAKE}}/{name}/*.parquet"
    else:
        columns, rows = read_columns(data)
        guessed = guess(columns, rows, timestamp=timestamp, entity=entity, label=label)
        location = str(data.resolve())
    for file in write_pipeline(pipelines_dir(pipelines) / name, name, location, guessed):
        typer.echo(f"wrote {file}")
    typer.echo(f"\nnext: edit them, then\n  perennial check {name}\n  perennial run {name}")
