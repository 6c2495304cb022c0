"""Asking several parts, of which one may be away: the others are asked all the same, and who did not answer is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from perennial_spec.errors import PerennialError

T = TypeVar("T")
PART_AWAY = 4
"""Exit code of a command that has told what it could, while a part was away."""


class Asking:
    """Remembers who is away, and asks them no more: one wait of seconds is enough."""

    def __init__(self) -> None:
        self.away: dict[str, str] = {}

    def of(self, part: str, ask: Callable[[], T]) -> T | None:
        """What `ask` returns; None when the part is away."""
        if part in self.away:
            return None
        try:
            return ask()
        except (PerennialError, OSError) as error:
            self.away[part] = str(error)
            return None
