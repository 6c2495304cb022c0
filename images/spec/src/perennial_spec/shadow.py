"""The `deployment.shadow` part of the spec: the challenger answers beside the champion, to nobody, and both answers are compared."""

from __future__ import annotations

from pydantic import Field

from perennial_spec.base import Model
from perennial_spec.units import Share


class Shadow(Model):
    """What a challenger's answers must be like before it takes the traffic (`strategy: shadow`)."""

    min_rows: int = Field(default=1000, ge=1)
    """Fewer rows that both versions have answered are inconclusive, and compared on up to `max_bake`."""
    min_agreement: Share = 0.9
    """Least share of the rows on which both say the same: the same class of a classifier (0.5 parts them); of other models, values
    less than a tenth of the champion's standard deviation apart."""
    max_psi: float = Field(default=0.25, gt=0)
    """Largest PSI between the challenger's answers and the champion's, by the champion's tenths."""
    disagreements: int = Field(default=100, ge=0, le=10_000)
    """So many rows, those on which the two are furthest apart, are kept with the version for a look."""
