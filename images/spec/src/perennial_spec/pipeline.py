"""`PipelineSpec`: one pipeline, the whole of `pipeline.yaml`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from perennial_spec.base import Model
from perennial_spec.canvas import Canvas
from perennial_spec.data import Data, Expectation
from perennial_spec.deployment import Deployment
from perennial_spec.experiment import OF_STRATEGY
from perennial_spec.model import METRICS_OF, Evaluation, MetricGate, ModelSpec, SliceGate
from perennial_spec.monitoring import Monitoring
from perennial_spec.retraining import Lifetime, Retraining, StepResources
from perennial_spec.step import StepName
from perennial_spec.units import format_duration

PipelineName = Annotated[str, StringConstraints(pattern=r"^[a-z](-?[a-z0-9])*$", max_length=40)]
"""A DNS label short enough to leave room for suffixes in Kubernetes object names."""

DEFAULT_ERROR_RATE = 0.01
DEFAULT_ATTRIBUTION = timedelta(hours=1)
DEFAULT_LATENCY_P99 = timedelta(milliseconds=500)
SHORT_WAITS = timedelta(minutes=5)
"""How long looks that are seconds apart may go on within one process; see `perennial_steps.runner.look`."""


def _some(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


class Owner(Model):
    team: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=63)]
    contact: str
    """Who is asked, an address or a channel."""


class PipelineSpec(Model):
    """A model, declared: its data, its gates, its rollout, and when to train it again."""

    apiVersion: Literal["perennial/v1"]
    name: PipelineName
    owner: Owner
    canvas: Canvas | None = None
    """What the model is for, in words; `perennial check` warns while it is missing."""
    data: Data
    expectations: tuple[Expectation, ...] = ()
    model: ModelSpec
    evaluation: Evaluation
    deployment: Deployment = Deployment()
    monitoring: Monitoring = Monitoring()
    retraining: Retraining = Retraining()
    resources: dict[StepName, StepResources] = Field(default_factory=dict)
    lifetime: Lifetime = Lifetime()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kept = {self.data.timestamp, self.data.entity, self.data.label.column, *_some(self.model.group)}
        hidden = {*self.data.exclude, *(c for c, how in self.data.redact.items() if how == "drop")}
        if clash := sorted(kept & hidden):
            raise ValueError(
                f"data.exclude and data.redact may not remove {', '.join(clash)}: timestamp, entity and label are needed"
                + (", and so is model.group" if self.model.group else "")
            )
        if self.model.group in (self.data.timestamp, self.data.label.column, self.data.entity):
            raise ValueError(
                f"model.group is {self.model.group}, the timestamp, entity or label: expected the column that names the list"
            )
        if self.model.kind == "xgboost.ranker" and self.monitoring.quality:
            raise ValueError(
                "monitoring.quality cannot be measured on a xgboost.ranker: labels come back row by row, and not as lists; "
                "leave it out, and watch drift"
            )
        self._check_slices()
        self._check_experiment()
        known = METRICS_OF[self.model.kind]
        used = [self.evaluation.metric]
        used += [gate.metric for gate in self.evaluation.gates if isinstance(gate, MetricGate | SliceGate)]
        used += [self.monitoring.quality.metric] if self.monitoring.quality else []
        if wrong := sorted(set(used) - set(known)):
            raise ValueError(
                f"{', '.join(wrong)} cannot be measured on a {self.model.kind}: expected one of {', '.join(known)}"
            )
        if self.data.query is None and len(self.data.sources) > 1:
            raise ValueError("data.query is needed to join more than one source")
        if self.model.split.holdout + self.model.split.validation >= self.data.window:
            raise ValueError("model.split.holdout and model.split.validation leave nothing of data.window to train on")
        return self

    def _check_slices(self) -> None:
        slices = self.monitoring.quality.slices if self.monitoring.quality else ()
        if unknown := sorted(set(slices) & self.data.unlogged):
            raise ValueError(
                f"monitoring.quality.slices cannot name {', '.join(unknown)}: the prediction log never holds the label, nor what "
                "data.exclude, data.sensitive and data.redact name; expected inputs of the model"
            )

    def _check_experiment(self) -> None:
        if self.deployment.strategy not in OF_STRATEGY:
            return
        experiment = self.deployment.experiment
        if experiment.measure == "label" and self.model.kind == "xgboost.ranker":
            raise ValueError(
                "deployment.experiment.measure cannot be label for a xgboost.ranker: labels come back row by row, and not as lists; "
                "expected reward"
            )
        reads_log = self.deployment.strategy == "ab" or experiment.unrewarded == "zero"
        if reads_log and self.monitoring.log.share == 0:
            raise ValueError(
                "the experiment of deployment reads the prediction log, and monitoring.log.share is 0%: expected more, best 100%"
            )
        if self.experiment_attribution >= experiment.max_duration:
            raise ValueError(
                f"deployment.experiment ends after {format_duration(experiment.max_duration)}, and looks at an entity "
                f"{format_duration(self.experiment_attribution)} after its first answer: expected a longer max_duration, or a shorter "
                "attribution"
            )

    def step_resources(self, step: str) -> StepResources:
        """What `step` may use: what the spec says, or the default."""
        return {str(name): wanted for name, wanted in self.resources.items()}.get(step, StepResources())

    def step_timeout(self, step: str) -> timedelta:
        """How long one attempt of `step` may take; of one that looks again, one look and the short waits after it (`step.py`)."""
        return self.step_resources(step).timeout + (
            SHORT_WAITS if step in {"analyse", "compare", "experiment"} else timedelta(0)
        )

    @property
    def experiment_attribution(self) -> timedelta:
        """How long after an answer what comes of it counts in an experiment."""
        experiment = self.deployment.experiment
        if experiment.attribution is not None:
            return experiment.attribution
        late = self.data.label.arrives_after if experiment.measure == "label" else timedelta(0)
        return DEFAULT_ATTRIBUTION + late

    @property
    def run_limit(self) -> timedelta:
        """How long a training run may be active before somebody is told; the time that a person takes to approve is not in it."""
        if self.monitoring.runs.longest is not None:
            return self.monitoring.runs.longest
        judged = 1 if self.deployment.strategy in {"blue_green", "shadow"} else len(self.deployment.rollout) - 1
        if self.deployment.strategy in OF_STRATEGY:
            judge, watched = "experiment", self.deployment.experiment.max_duration
        else:
            judge, watched = "analyse", judged * max(self.deployment.bake, self.deployment.max_bake)
        steps = ("ingest", "validate", "train", "evaluate", *("deploy", judge) * judged, "promote")
        return sum((self.step_resources(step).timeout for step in steps), watched)

    @property
    def error_rate_limit(self) -> float:
        """Share of failed requests above which the service is in trouble."""
        if self.monitoring.service.error_rate is not None:
            return self.monitoring.service.error_rate
        limits = (entry.error_rate for entry in self.deployment.abort_on if entry.error_rate is not None)
        return min(limits, default=DEFAULT_ERROR_RATE)

    @property
    def latency_limit(self) -> timedelta:
        """99th percentile of the latency above which the service is in trouble."""
        if self.monitoring.service.latency_p99 is not None:
            return self.monitoring.service.latency_p99
        limits = (entry.latency_p99 for entry in self.deployment.abort_on if entry.latency_p99 is not None)
        return min(limits, default=DEFAULT_LATENCY_P99)
