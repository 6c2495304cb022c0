"""Quantities as people write them in a spec: `6h`, `10%`, `4Gi`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGEST = timedelta(days=100_000)
"""Longer ones overflow when they are added to a time, and nobody means them."""
_BYTES = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d|w)$")
_SHARE = re.compile(r"^(\d+(?:\.\d+)?)%$")
_MEMORY = re.compile(r"^(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?$")


def parse_duration(text: Any) -> timedelta:
    """`20ms`, `10s`, `5m`, `6h`, `14d` or `2w` as a timedelta."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.match(text) if isinstance(text, str) else None
    if not match:
        raise ValueError("expected a number with a unit: ms, s, m, h, d or w, as in 10m")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"expected a duration of at most {_LONGEST.days}d")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The text in the largest whole unit, that `parse_duration` reads back as `value`."""
    seconds = value.total_seconds()
    for unit in ("w", "d", "h", "m", "s"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + "ms"


def parse_share(text: Any) -> float:
    """`10%` or `0.1` as 0.1."""
    if isinstance(text, str):
        match = _SHARE.match(text)
        if not match:
            raise ValueError("expected a share such as 10% or 0.1")
        return float(match[1]) / 100
    if isinstance(text, bool) or not isinstance(text, int | float):
        raise ValueError("expected a share such as 10% or 0.1")
    return float(text)


def format_share(value: float) -> str:
    """0.1 as `10%`."""
    return f"{value * 100:g}%"


def parse_memory(text: Any) -> int:
    """`4Gi` or `500M` in bytes."""
    match = _MEMORY.match(str(text)) if not isinstance(text, bool) else None
    if not match:
        raise ValueError("expected an amount of memory such as 4Gi or 500Mi")
    return int(float(match[1]) * _BYTES[match[2] or ""])


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["10m", "6h", "14d"]}),
]
Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SHARE.pattern}, {"type": "number"}], "examples": ["10%"]}),
]
Memory = Annotated[
    int,
    BeforeValidator(parse_memory),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": _MEMORY.pattern}, {"type": "integer"}], "examples": ["4Gi"]}
    ),
]
