"""The `model` and `evaluation` parts of the spec."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from perennial_spec.base import Model
from perennial_spec.data import Column
from perennial_spec.units import Duration

ModelKind = Literal["xgboost.classifier", "xgboost.regressor", "xgboost.ranker"]
ClassifierMetric = Literal["roc_auc", "average_precision", "log_loss", "brier"]
RegressorMetric = Literal["rmse", "mae", "r2"]
RankerMetric = Literal["ndcg", "map"]
Metric = Literal["roc_auc", "average_precision", "log_loss", "brier", "rmse", "mae", "r2", "ndcg", "map"]
LOWER_IS_BETTER: frozenset[str] = frozenset({"log_loss", "brier", "rmse", "mae"})
MAX_GRADE = 31
"""A ranker's labels are whole numbers from 0 to this: XGBoost's limit, because the gain of a grade is 2^grade - 1."""
METRICS_OF: dict[str, tuple[str, ...]] = {
    "xgboost.classifier": ("roc_auc", "average_precision", "log_loss", "brier"),
    "xgboost.regressor": ("rmse", "mae", "r2"),
    "xgboost.ranker": ("ndcg", "map"),
}


class Tuning(Model):
    """Hyper-parameter search with Optuna, on the validation part of the training window."""

    trials: int = Field(default=20, ge=1, le=10_000)
    timeout: Duration = timedelta(minutes=10)


class Split(Model):
    """How the window is divided, by time."""

    holdout: Duration = timedelta(days=14)
    """The newest part of the window: gates are judged on it, and no model sees it in training."""
    validation: Duration = timedelta(days=7)
    """The part before the holdout: early stopping and tuning use it."""


class ModelSpec(Model):
    """What is trained."""

    kind: ModelKind
    group: Column | None = None
    """Of a ranker: the column that names the list (the query) which a row belongs to. Never a feature; no list is cut by the split."""
    features: Annotated[str, StringConstraints(pattern=r"^[\w./-]+\.py:[A-Za-z_]\w*$")] = "features.py:features"
    """`file.py:function` in the pipeline's folder: columns in, columns out."""
    params: dict[str, Any] = Field(default_factory=dict)
    """XGBoost's own parameters, by their own names."""
    rounds: int = Field(default=500, ge=1, le=100_000)
    """Boosting rounds at most."""
    early_stopping: int | None = Field(default=30, ge=1)
    """Stop after this many rounds without a gain on the validation part."""
    seed: int = 0
    tuning: Tuning | None = None
    split: Split = Split()

    @model_validator(mode="after")
    def _has_lists(self) -> Self:
        if self.kind == "xgboost.ranker" and self.group is None:
            raise ValueError(
                "expected group with xgboost.ranker: the column that names the list which a row belongs to"
            )
        if self.kind != "xgboost.ranker" and self.group is not None:
            raise ValueError(f"group is for xgboost.ranker: a {self.kind} answers each row by itself")
        return self


class MetricGate(Model):
    """The challenger's metric on the holdout, absolute."""

    metric: Metric
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        _need_bound(self.min, self.max)
        return self


class ChampionGate(Model):
    """The challenger against the champion: paired bootstrap on the same holdout."""

    against: Literal["champion"]
    min_gain: float = 0.0
    """Least gain in the evaluation metric, in the metric's own units; positive is better whichever way the metric runs."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """One-sided: the lower end of the gain's interval at this confidence must reach `min_gain`."""


class SliceGate(Model):
    """The metric within each value of a column, so that no group is left behind by a good average."""

    slice: Column
    metric: Metric
    min: float | None = None
    max: float | None = None
    min_rows: int = Field(default=200, ge=1)
    """Slices with fewer rows are reported and not judged."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        _need_bound(self.min, self.max)
        return self


def _need_bound(low: float | None, high: float | None) -> None:
    if low is None and high is None:
        raise ValueError("expected min or max: a gate without a bound can never fail")


def _gate_kind(value: Any) -> str | None:
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Model) else ()
    return next((f"gate:{kind}" for kind in ("against", "slice", "metric") if kind in keys), None)


Gate = Annotated[
    Annotated[MetricGate, Tag("gate:metric")]
    | Annotated[ChampionGate, Tag("gate:against")]
    | Annotated[SliceGate, Tag("gate:slice")],
    Discriminator(
        _gate_kind,
        custom_error_type="gate_kind",
        custom_error_message="expected a gate with one of the keys metric, slice or against",
    ),
]


class Evaluation(Model):
    """How a challenger is judged before it may take traffic."""

    metric: Metric
    """The metric that champion and challenger are compared by."""
    gates: tuple[Gate, ...] = Field(min_length=1)
    """All must hold."""
