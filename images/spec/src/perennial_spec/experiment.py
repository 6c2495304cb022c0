"""The `deployment.experiment` part of the spec: champion and challenger compared on live traffic, by what came of their answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perennial_spec.base import Model
from perennial_spec.units import Duration, Share

Positive = Annotated[Duration, Field(gt=timedelta(0))]


class Experiment(Model):
    """How an experiment (`strategy: ab` or `bandit`) is measured, and when it ends. See docs/experiments.md."""

    measure: Literal["reward", "label"] = "reward"
    """`reward`: what clients send to `/feedback` by prediction id, more is better. `label` (ab only): the loss on labels, less is
    better: log loss, absolute or squared error as `evaluation.metric` says, the Brier score for a classifier otherwise."""
    share: Annotated[Share, Field(gt=0, lt=1)] = 0.5
    """ab: the challenger's share of the entities, from beginning to end. Halves need the fewest."""
    attribution: Positive | None = None
    """What comes within this time of an entity's first answer (bandit: of each answer) counts, and is looked at when it has passed. Without
    it 1h; with labels, 1h more than `data.label.arrives_after`."""
    unrewarded: Literal["skip", "zero"] = "skip"
    """An answer to which no reward came in time: not counted, or a reward of 0 (clicks, which are sent only when they happen)."""
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    """ab: of the interval, at all looks together. bandit: the chance at which one version is taken to be the better."""
    min_effect: float = 0.0
    """ab: the challenger wins when the whole interval of its gain, in the measure's unit, is above this, and loses when it is below.
    Negative: it may be worse by so much."""
    min_count: int = Field(default=100, ge=10)
    """With fewer entities (bandit: rewards) of either version nothing is decided."""
    planned: int = Field(default=10_000, ge=100)
    """ab: at so many entities of both versions together the interval is the narrowest that it can be; it holds at any number."""
    explore: Share = Field(default=0.0, ge=0, lt=0.5)
    """bandit: no version gets less than this share of the traffic, however bad it looks."""
    min_duration: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(days=1)
    """The challenger does not win before this, nor before twice `deployment.bake`: a day has its night. It may lose at any time."""
    max_duration: Positive = timedelta(days=14)
    """Undecided for so long, the experiment ends as `deployment.on_inconclusive` says."""

    @model_validator(mode="after")
    def _ends_after_it_may(self) -> Self:
        if self.min_duration > self.max_duration:
            raise ValueError("expected a min_duration of at most max_duration")
        return self

    @model_validator(mode="after")
    def _labels_are_no_rewards(self) -> Self:
        if self.measure == "label" and "unrewarded" in self.model_fields_set:
            raise ValueError("unrewarded does nothing with measure label: leave it out")
        return self


OF_STRATEGY: dict[str, frozenset[str]] = {
    "ab": frozenset(Experiment.model_fields) - {"explore"},
    "bandit": frozenset(Experiment.model_fields) - {"measure", "share", "min_effect", "planned"},
}
"""The words that mean something, by strategy."""
