"""What one look at an experiment comes to, whatever the strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from perennial_spec.load import Pipeline
from perennial_spec.platform import Platform
from perennial_spec.route import Arms
from perennial_steps.analysis import Judgement


@dataclass(frozen=True)
class Asked:
    """Which experiment is looked at, and when."""

    pipeline: Pipeline
    platform: Platform
    challenger: str
    champion: str
    since: datetime
    now: datetime


@dataclass(frozen=True)
class Look:
    """What was seen."""

    judgement: Judgement
    """pass: the challenger wins; fail: the champion does; inconclusive: look again; error: the figures cannot be compared."""
    figures: Mapping[str, Any]
    """For the outputs of the step."""
    paint: Callable[[Path], None]
    """Draws it as a PNG file."""
    arms: Arms = field(default_factory=dict)
    """What a bandit is to know from now on."""
