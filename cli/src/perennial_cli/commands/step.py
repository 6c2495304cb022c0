"""perennial step"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def command(
    step: Annotated[
        str,
        typer.Argument(
            help="ingest, validate, train, evaluate, signoff, deploy, analyse, compare, experiment, promote, rollback or retire."
        ),
    ],
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    run_key: Annotated[
        str | None, typer.Option(help="Steps of one run share it; the same key twice has the effect of once.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="STEP.KEY=VALUE: an output of a step before.")
    ] = None,
    params: Annotated[list[str] | None, typer.Option("--param", help="KEY=VALUE, as in share=0.1.")] = None,
    results: Annotated[str | None, typer.Option("--results", help="File that keeps outputs from step to step.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request, and run nothing.")] = False,
) -> None:
    """Run one step by hand, in this process, against the running platform.

        perennial step ingest flight-delays --run-key try-1 --results try-1.json
        perennial step validate flight-delays --run-key try-1 --results try-1.json
        perennial step train flight-delays --run-key try-1 --results try-1.json

    Stays until a step that looks again has its answer.

    Prints the result as JSON. Exits 0 for pass, 10 for fail, 11 for inconclusive, 1 for error.
    """
    import getpass
    import os
    from dataclasses import replace
    from datetime import UTC, datetime
    from pathlib import Path

    from perennial_cli.embedded import connection
    from perennial_cli.paths import pipelines_dir
    from perennial_spec.errors import ContractError, nearest
    from perennial_spec.load import discover
    from perennial_spec.step import STEPS, Reason, StepRequest

    if step not in STEPS:
        guess = nearest(step, STEPS)
        raise ContractError(
            f"there is no step {step!r}",
            expected=f"one of {', '.join(STEPS)}",
            next=f"did you mean {guess!r}?" if guess else "",
        )
    catalogue = discover(pipelines_dir())
    pipeline = catalogue.get(name)
    known: dict[str, dict[str, Any]] = (
        json.loads(Path(results).read_text()) if results and Path(results).exists() else {}
    )
    for path, value in parse_pairs(inputs or [], "--input", "STEP.KEY=VALUE").items():
        owner, _, key = path.partition(".")
        known.setdefault(owner, {})[key] = value
    request = StepRequest.model_validate(
        {
            "pipeline": name,
            "step": step,
            "run_key": run_key or f"by-hand-{datetime.now(UTC):%Y%m%dT%H%M%S}",
            "spec_digest": pipeline.digest,
            "reason": Reason(kind="person", summary="asked for by hand", actor=getpass.getuser()),
            "inputs": known,
            "params": parse_pairs(params or [], "--param", "KEY=VALUE"),
        }
    )
    if dry_run:
        typer.echo(request.model_dump_json(indent=2))
        return
    platform = replace(connection.load(), pipelines_dir=str(catalogue.root))  # the files that the request was made from
    os.environ.update(platform.to_environment())  # sources and libraries read theirs from the environment
    from perennial_steps.progress import log_to_stderr
    from perennial_steps.runner import run_to_the_end

    log_to_stderr()
    result = run_to_the_end(request, platform)
    typer.echo(result.model_dump_json(indent=2, exclude_none=True))
    if results and result.verdict == "pass":
        Path(results).write_text(json.dumps(known | {step: result.outputs}, indent=2))
    raise typer.Exit(result.verdict.exit_code)


def parse_pairs(pairs: list[str], option: str, form: str) -> dict[str, Any]:
    """`a=1` as {"a": 1}; a value that is not JSON is text.

    Raises:
        ContractError: a pair without `=`.
    """
    from perennial_spec.errors import ContractError

    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ContractError(f"{option} {pair!r}", expected=form)
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed
