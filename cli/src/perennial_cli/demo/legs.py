"""What the demonstration measured: legs with their times, and the facts that prove that the loop closed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Leg:
    """One leg of the story."""

    title: str
    seconds: float = 0.0
    outcome: str = ""


@dataclass
class Summary:
    """All legs, in order, and the figures. Written to the state folder, so that pictures can be made of it later."""

    legs: list[Leg] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def leg(self, title: str) -> Iterator[Leg]:
        """Times a leg; the leg is kept even if it fails, with what it got to."""
        leg, began = Leg(title), time.monotonic()
        self.legs.append(leg)
        try:
            yield leg
        finally:
            leg.seconds = time.monotonic() - began

    @property
    def seconds(self) -> float:
        return sum(leg.seconds for leg in self.legs)

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, file: Path) -> Summary:
        stored = json.loads(file.read_text())
        return cls([Leg(**leg) for leg in stored["legs"]], stored["facts"])
