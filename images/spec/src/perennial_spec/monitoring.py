"""The `monitoring` part of the spec: what raises an alert while the model serves."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perennial_spec.base import Model
from perennial_spec.data import Column
from perennial_spec.model import Metric
from perennial_spec.units import Duration, Share


class Drift(Model):
    """When live inputs have moved too far from those that the model was trained on."""

    psi: float = Field(default=0.2, gt=0)
    """Population stability index at which a feature counts as drifted (0.1 to 0.25: moderate; above: large; Siddiqi, 2006)."""
    window: Literal["5m", "1h", "1d"] = "1h"
    min_rows: int = Field(default=500, ge=50)
    """Fewer rows in the window are never judged."""
    ignore: tuple[Column, ...] = ()
    """Features that are still measured and drawn, and never alert: they move with the season and the model is not hurt by it."""


class Concept(Model):
    """When what moves the model's answers has shifted, over the window of `drift`; features in `drift.ignore` are left out."""

    attribution_shift: float = Field(default=0.12, gt=0, le=1)
    """Part of the answers' attribution (mean |TreeSHAP contribution|) that has gone from some features to others since training at which it
    counts as shifted: the total variation of the features' shares, from 0 to 1."""
    min_rows: int = Field(default=200, ge=50)
    """Fewer explained rows in the window are never judged. A model server explains a random sample of at most 300 rows a minute."""


class Quality(Model):
    """When live quality, measured on labels as they arrive, is too low."""

    metric: Metric
    min: float | None = None
    max: float | None = None
    window: Duration = timedelta(days=7)
    """Quality is measured on the predictions of this time, and of `data.label.arrives_after` before it."""
    min_labels: int = Field(default=500, ge=20)
    """Fewer labels in the window are never judged."""
    min_labelled: Annotated[Share, Field(ge=0, le=1)] = 0.5
    """Share of the predictions that should have a label by `data.label.arrives_after`; fewer raise PerennialLabelsLate."""
    slices: tuple[Column, ...] = Field(default=(), max_length=10)
    """Inputs by whose values quality is measured too, beside the slices of the gates: the 20 most frequent values, and the rest as
    `other`. Only what the prediction log holds: nothing excluded, sensitive or redacted."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if (self.min is None) == (self.max is None):
            raise ValueError("expected exactly one of min (roc_auc, r2, ...) or max (log_loss, rmse, ...)")
        return self


class Log(Model):
    """What the model server keeps of what it answered; drift is counted on all of it, whatever is kept."""

    share: Annotated[Share, Field(ge=0, le=1)] = 1.0
    """Share of the predictions that are logged, drawn at random row by row: 100% logs all, 0% none. Labels are all kept. Quality is
    measured on the logged predictions alone: the draw knows neither score nor label, so it does not shift what is measured, but fewer
    predictions meet a label, and `min_labels` takes longer to reach."""


class Service(Model):
    """When the model server answers too slowly, or with too many errors; judged over the last 5 minutes, on all versions together."""

    error_rate: Share | None = None
    """Share of the requests that failed on the server's side (5xx). Without it the limit in `deployment.abort_on`, or 1%."""
    latency_p99: Duration | None = None
    """From the first byte of a request to its answer. Without it the limit in `deployment.abort_on`, or 500ms."""
    min_requests: int = Field(default=100, ge=1)
    """Fewer requests within 5 minutes are never judged."""


class Runs(Model):
    """When the training runs need a person."""

    failures: int = Field(default=2, ge=1)
    """So many runs in a row that ended without a verdict on a model raise an alert. A challenger that was rejected is no failure."""
    without_promotion: int = Field(default=5, ge=1)
    """So many retrainings by alerts, of which none led to a new champion, raise an alert and open the breaker: no alert starts another
    until a run led to a new champion, or somebody says `perennial resume`."""
    longest: Duration | None = None
    """A run that is active for longer raises an alert. Without it the sum of the timeouts of its steps, one attempt each."""


class Monitoring(Model):
    """What raises an alert while the model serves."""

    drift: Drift = Drift()
    concept: Concept = Concept()
    quality: Quality | None = None
    service: Service = Service()
    runs: Runs = Runs()
    log: Log = Log()

    @model_validator(mode="after")
    def _quality_needs_predictions(self) -> Self:
        if self.quality is not None and self.log.share == 0:
            raise ValueError("expected log.share above 0%, because quality is measured on logged predictions")
        return self
