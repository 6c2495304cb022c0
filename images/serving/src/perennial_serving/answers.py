"""What the engine hands to the protocols: scores by row, and who made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Scores by row, and who made them."""

    scores: Sequence[float] | Any
    """[rows], or [rows, outputs] for a model with several; numpy arrays, or lists of numbers or text."""
    versions: Sequence[str]
    """By row."""
    ids: Sequence[str]
    """By row."""
    distinct: tuple[str, ...]
    """Versions that took part."""
