"""The `deployment` part of the spec: how a challenger that passed its gates takes over."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from perennial_spec.base import Model
from perennial_spec.experiment import OF_STRATEGY, Experiment
from perennial_spec.shadow import Shadow
from perennial_spec.units import Duration, Share


def _rising_to_all(steps: tuple[float, ...]) -> tuple[float, ...]:
    if any(not 0 < share <= 1 for share in steps) or list(steps) != sorted(set(steps)) or steps[-1] != 1:
        raise ValueError("expected rising shares of the traffic that end with 100%, as in [10%, 50%, 100%]")
    return steps


Strategy = Literal["replace", "canary", "blue_green", "shadow", "ab", "bandit"]


class AbortOn(Model):
    """A limit that sends all traffic back to the champion when the challenger passes it."""

    error_rate: Share | None = None
    """Share of the challenger's requests that failed."""
    latency_p99: Duration | None = None
    prediction_psi: float | None = Field(default=None, gt=0)
    """PSI between the challenger's live predictions and those on its own reference data."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.error_rate, self.latency_p99, self.prediction_psi)) != 1:
            raise ValueError("expected exactly one of error_rate, latency_p99 or prediction_psi per entry")
        return self


class Deployment(Model):
    """How a challenger that passed its gates takes over."""

    strategy: Strategy = "canary"
    """`canary`: step by step, each step judged; `replace`: all at once; `blue_green`: all at once when every server has loaded it, judged
    for `bake` while the champion stays loaded; `shadow`: for `bake` beside the champion, to nobody, until both are compared; `ab`: a
    fixed share of the entities each, until the difference in what came of the answers is beyond chance; `bandit`: the better a
    version's rewards, the more traffic it gets, until one is best."""
    steps: Annotated[tuple[Share, ...], AfterValidator(_rising_to_all)] = Field(
        default=(0.1, 0.5, 1.0), min_length=1, max_length=20
    )
    bake: Duration = timedelta(minutes=10)
    """A step is watched for this long before it is judged; days are fine, nothing runs in between."""
    min_requests: int = Field(default=50, ge=1)
    """A step with fewer requests to the challenger is inconclusive, and watched on up to `max_bake`."""
    max_bake: Duration = timedelta(hours=1)
    on_inconclusive: Literal["abort", "continue"] = "abort"
    """What to do with a step that is still inconclusive after `max_bake`."""
    max_hold: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(hours=6)
    """A step without figures, because Prometheus or the registry is away, is held: its share stays, and nothing is promoted nor taken back.
    When it has been without figures for this long in all, the traffic goes back."""
    abort_on: tuple[AbortOn, ...] = (AbortOn(error_rate=0.01),)
    approval: Literal["none", "required"] = "none"
    """`required`: a person sees the evidence and signs off before the challenger takes any traffic."""
    approvers: tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...] = Field(
        default=(), max_length=50
    )
    """Airflow users who may answer; everybody who may act on the pipeline's runs when empty."""
    approval_timeout: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(days=7)
    """A run waits this long for an answer, and other runs of the pipeline wait behind it."""
    on_approval_timeout: Literal["reject", "approve"] = "reject"

    shadow: Shadow = Shadow()
    """Of `strategy: shadow`."""
    experiment: Experiment = Experiment()
    """Of `strategy: ab` and `bandit`."""
    watch: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(hours=72)
    """For so long after a promotion, a new champion that turns out to be worse is rolled back to the version before it, without a
    person and without a retraining; `0s`: never."""

    @model_validator(mode="after")
    def _words_of_the_experiment_are_of_the_strategy(self) -> Self:
        known = OF_STRATEGY.get(self.strategy)
        if known is None and "experiment" in self.model_fields_set:
            raise ValueError(
                f"experiment does nothing with strategy {self.strategy}: expected strategy {' or '.join(OF_STRATEGY)}"
            )
        if known is not None and (idle := sorted(self.experiment.model_fields_set - known)):
            raise ValueError(f"experiment.{idle[0]} does nothing with strategy {self.strategy}: leave it out")
        if "shadow" in self.model_fields_set and self.strategy != "shadow":
            raise ValueError(f"shadow does nothing with strategy {self.strategy}: expected strategy shadow")
        if (known is not None or self.strategy in {"blue_green", "shadow"}) and "steps" in self.model_fields_set:
            raise ValueError(f"steps does nothing with strategy {self.strategy}: leave it out")
        return self

    @property
    def experiment_least(self) -> timedelta:
        """An experiment is not won before this: limits are judged over two times `bake`."""
        return max(self.experiment.min_duration, 2 * self.bake)

    @property
    def rollout(self) -> tuple[float, ...]:
        """The shares of traffic that the challenger takes in turn; the last is always 1. A bandit's first is where it begins."""
        if self.strategy in OF_STRATEGY:
            return (self.experiment.share, 1.0)
        return self.steps if self.strategy == "canary" else (1.0,)
