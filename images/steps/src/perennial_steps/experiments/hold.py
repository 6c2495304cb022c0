"""How long an experiment has been without figures, because Prometheus, the registry or the store was away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Hold:
    """What a look tells the next one. Unix seconds by this machine's clock."""

    held_since: float | None = None
    """While there are no figures."""
    lost: float = 0.0
    """Seconds without figures before."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Hold:
        return cls(**{each.name: state[each.name] for each in fields(cls) if each.name in state})

    def begun(self, now: float) -> Hold:
        """There are no figures now."""
        return self if self.held_since is not None else Hold(now, self.lost)

    def over(self, now: float) -> Hold:
        """There are figures again."""
        return Hold(None, self.seconds(now))

    def seconds(self, now: float) -> float:
        """Without figures, in all."""
        return self.lost + self.current(now)

    def current(self, now: float) -> float:
        """Without figures, this time."""
        return max(0.0, now - self.held_since) if self.held_since is not None else 0.0
