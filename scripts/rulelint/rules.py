"""Rule files as they are written: each rule with its place and the comment above it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule of a file."""

    file: str
    line: int
    """Of its first line."""
    group: str
    record: str = ""
    """Name of the series that it records; empty for an alert."""
    alert: str = ""
    expr: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    waits: bool = False
    """It has `for` or `keep_firing_for`."""
    comment: str = ""
    """The lines above it that begin with #."""

    @property
    def name(self) -> str:
        return self.alert or self.record


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and what to do."""

    file: str
    line: int
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}\n  next: {self.todo}"


def read_rules(file: Path) -> list[Rule]:
    """The rules of one file.

    Raises:
        yaml.YAMLError, KeyError, TypeError: not a file of rules; promtool says what is wrong with it.
    """
    text = file.read_text()
    lines = text.splitlines()
    loaded = yaml.safe_load(text)
    places = list(_places(yaml.compose(text)))
    rules = [(group["name"], rule) for group in loaded["groups"] for rule in group["rules"]]
    return [
        Rule(
            file=str(file),
            line=line,
            group=group,
            record=rule.get("record", ""),
            alert=rule.get("alert", ""),
            expr=str(rule["expr"]),
            labels={key: str(value) for key, value in (rule.get("labels") or {}).items()},
            annotations={key: str(value) for key, value in (rule.get("annotations") or {}).items()},
            waits="for" in rule or "keep_firing_for" in rule,
            comment=_comment_above(lines, line),
        )
        for (group, rule), line in zip(rules, places, strict=True)
    ]


def _places(root: Any) -> Iterator[int]:
    """The first line of every rule, in their order."""
    for group in _value(root, "groups").value:
        for rule in _value(group, "rules").value:
            yield rule.start_mark.line + 1


def _value(node: Any, key: str) -> Any:
    return next(value for name, value in node.value if name.value == key)


def _comment_above(lines: list[str], line: int) -> str:
    found: list[str] = []
    for text in reversed(lines[: line - 1]):
        if not text.lstrip().startswith("#"):
            break
        found.append(text.strip().lstrip("# "))
    return " ".join(reversed(found))
