"""Writes docs/serving-settings.md from the model server's settings, so that it cannot say anything else. `make render` calls it."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from perennial_serving import settings
from perennial_serving.settings import Settings, bounds, variable

TARGET = Path(__file__).parent / "serving-settings.md"

HEAD = """\
# Settings of the model server

The model server is configured by its environment alone. Unset or empty variables have their default; a value that cannot be is refused
by name before anything starts. Where the registry, the store and the other parts are is said by the platform's variables
([the platform on one machine](embedded.md)); what belongs to one pipeline is in [its file](pipeline.md).

This page is written by `make render`.

| variable | default | values | meaning |
| --- | --- | --- | --- |
"""


def render() -> str:
    """The whole page as Markdown."""
    words = _docstrings()
    lines = []
    for field in fields(Settings):
        meaning = " ".join(words[field.name].split()).replace("|", "\\|")
        lines.append(
            f"| `{variable(field.name)}` | {_shown(field.default)} | {_values(field.name, field.default)} | {meaning} |"
        )
    return HEAD + "\n".join(lines) + "\n"


def _docstrings() -> dict[str, str]:
    """Field to the string below it."""
    body = next(
        node.body
        for node in ast.parse(inspect.getsource(settings)).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    found = {}
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(after, ast.Expr), f"{node.target.id} has no docstring"
            found[node.target.id] = ast.literal_eval(after.value)
    return found


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default in ("", ()):
        return "-"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _values(name: str, default: Any) -> str:
    if isinstance(default, bool):
        return "`true`, `false`"
    if isinstance(default, tuple):
        return "words"
    if isinstance(default, str):
        return "text"
    least, most = bounds(name)
    kind = "whole number" if isinstance(default, int) else "number"
    return f"{kind}, {least:,.15g} to {most:,.15g}" if most < 2**53 else f"{kind}, {least:,.15g} or more"


if __name__ == "__main__":
    TARGET.write_text(render())
