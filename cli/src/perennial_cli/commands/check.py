"""perennial check"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    name: Annotated[str | None, typer.Argument(help="Name of the pipeline; all when not given.")] = None,
    sources: Annotated[bool, typer.Option(help="Ask the sources too: that they answer, and have the columns.")] = True,
    lake: Annotated[Path | None, typer.Option(help="Folder for ${PERENNIAL_LAKE} in the sources.")] = None,
) -> None:
    """Check pipelines: the spec, the feature code, the expectations, and that the sources answer.

    Needs no running platform. Exits 0 when nothing stands against a run, 2 otherwise.
    """
    import os

    from perennial_cli.console import make_console
    from perennial_cli.embedded.home import find_home
    from perennial_cli.paths import pipelines_dir
    from perennial_spec.load import discover
    from perennial_spec.platform import Platform
    from perennial_steps.check import check_pipeline

    os.environ.setdefault("PERENNIAL_LAKE", str(lake or find_home().lake))
    if lake:
        os.environ["PERENNIAL_LAKE"] = str(lake)
    catalogue = discover(pipelines_dir())
    chosen = [catalogue.get(name)] if name else list(catalogue.pipelines)
    console, wrong = make_console(), 0
    for broken in () if name else catalogue.broken:
        wrong += 1
        console.print(f"[red]✗[/] {broken.folder.name}")
        console.print(str(broken.error), markup=False)
    for pipeline in chosen:
        findings = check_pipeline(pipeline, Platform.from_environment(), sources=sources)
        errors = [finding for finding in findings if finding.level == "error"]
        wrong += bool(errors)
        console.print(f"[red]✗[/] {pipeline.name}" if errors else f"[green]✓[/] {pipeline.name}")
        for finding in findings:
            console.print(f"  {finding.level}: {finding}", markup=False)
    if not catalogue.pipelines and not catalogue.broken:
        console.print(f"no pipelines in {catalogue.root}; make one with: perennial new NAME")
    raise typer.Exit(2 if wrong else 0)
