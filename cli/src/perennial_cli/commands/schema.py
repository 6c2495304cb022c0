"""`perennial schema`."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON Schema of pipeline.yaml, for editors and other languages."""
    from perennial_spec.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
