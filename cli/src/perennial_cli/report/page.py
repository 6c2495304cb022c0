"""The page of a report: one file, without scripts, that loads nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from perennial_cli.insight import words
from perennial_cli.insight.story import Version
from perennial_cli.report.charts import charts
from perennial_cli.report.model import LOOK_BACK, Report
from perennial_spec.errors import PlatformError


def render(report: Report) -> str:
    """The page. What comes from outside (names, reasons, summaries) is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("perennial_cli.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    seconds = report.span.step < timedelta(minutes=5)
    environment.filters |= {
        "when": partial(_when, seconds=seconds),
        "svg": Markup,
    }  # SVG is matplotlib's, which escapes the text in it
    return environment.get_template("report.html.j2").render(
        report=report,
        since=words.length(report.span.end - report.span.start),
        step=words.length(report.span.step),
        accuracy=words.length(max(report.span.step, LOOK_BACK)),
        charts=charts(report),
        gates=gates(report.versions),
        words=words,
    )


def gates(versions: Sequence[Version]) -> list[str]:
    """Names of all gates of these versions, in the order in which they come first."""
    return list(dict.fromkeys(gate.name for version in versions for gate in version.gates))


def need_writable(file: Path) -> None:
    """Tell before anything is asked that a file cannot be written.

    Raises:
        PlatformError: it is a folder, or its folder is not there or closed.
    """
    if file.is_dir():
        raise _unwritable(file, "it is a folder")
    if not file.parent.is_dir():
        raise _unwritable(file, "its folder does not exist")
    if not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        raise _unwritable(file, "permission denied")


def write(file: Path, text: str) -> None:
    """Write a file in one piece: who has the old page open keeps it until the new one is whole.

    Raises:
        PlatformError: it cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as draft:
            draft.write(text)
        Path(draft.name).chmod(0o644)
        Path(draft.name).replace(file)
    except OSError as error:
        raise _unwritable(file, error.strerror or str(error)) from error


def _unwritable(file: Path, why: str) -> PlatformError:
    return PlatformError(
        f"the report cannot be written: {why}",
        where=str(file),
        expected="a file in a folder that is there and may be written to",
        next="name another one with --output FILE",
    )


def _when(at: datetime | None, *, seconds: bool) -> str:
    if at is None:
        return "-"
    return f"{at:%Y-%m-%d %H:%M:%S}" if seconds else f"{at:%Y-%m-%d %H:%M}"
