"""The dates of the story."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Script:
    """When what is delivered, and which flights are replayed how fast."""

    pipeline: str = "flight-delays"
    first_months: range = range(1, 3)
    """The first champion is trained on these months of 2013."""
    later_months: range = range(3, 6)
    """These have arrived too when the replay begins."""
    replay_from: datetime = datetime(2013, 6, 1, tzinfo=UTC)
    replay_to: datetime = datetime(2013, 8, 1, tzinfo=UTC)
    per_second: timedelta = timedelta(hours=6)
    """Simulated time that passes in a second: about 240 flights."""
