"""Fitting XGBoost: from numpy, with native categories and missing values, early stopping, and Optuna when the spec asks for it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial_features.code import Array
from perennial_features.engine import load_xgboost
from perennial_features.schema import FeatureSchema
from perennial_spec.errors import SpecError, nearest
from perennial_spec.model import ModelSpec
from perennial_steps.evaluation.metrics import figure, gain_of
from perennial_steps.training.dataset import Parts

if TYPE_CHECKING:
    import xgboost

log = logging.getLogger(__name__)

EVAL_METRIC = {
    "roc_auc": "auc",
    "average_precision": "aucpr",
    "log_loss": "logloss",
    "brier": "logloss",
    "rmse": "rmse",
    "mae": "mae",
    "r2": "rmse",
    "ndcg": "ndcg",
    "map": "map",
}
"""What early stopping watches: XGBoost's metric that orders models as the spec's metric does (brier: nearly)."""
OBJECTIVE = {
    "xgboost.classifier": "binary:logistic",
    "xgboost.regressor": "reg:squarederror",
    "xgboost.ranker": "rank:ndcg",
}
ALLOWED = {
    "xgboost.classifier": ("binary:logistic",),
    "xgboost.regressor": ("reg:", "count:poisson"),
    "xgboost.ranker": ("rank:ndcg", "rank:pairwise", "rank:map"),
}
"""Objectives, or how they begin: those whose predictions are what the kind promises."""
RESERVED = (
    "seed",
    "random_state",
    "nthread",
    "n_jobs",
    "num_class",
    "device",
    "eval_metric",
    "process_type",
    "multi_strategy",
)
"""Parameters that the platform sets, from the spec's own words, or that would break what serving relies on."""


@dataclass(frozen=True)
class Material:
    """What a model is fitted to."""

    matrix: Array
    """float32[rows, features], the whole window."""
    label: Array
    """float64[rows]."""
    schema: FeatureSchema
    parts: Parts
    metric: str
    """The spec's evaluation metric."""
    threads: int
    group: Array | None = None
    """int64[rows], rising: the lists of a ranker."""

    def group_of(self, rows: slice) -> Array | None:
        return None if self.group is None else self.group[rows]


@dataclass(frozen=True)
class Fitted:
    """A model, and how it came about."""

    booster: xgboost.Booster
    """Cut to its best round."""
    params: dict[str, Any]
    rounds: int
    validation: float
    """The spec's metric on the validation part."""
    trials: list[dict[str, Any]] = field(default_factory=list)


def fit(material: Material, model: ModelSpec) -> Fitted:
    """The best model of the spec's parameters, or of the search that it asks for.

    Raises:
        SpecError: XGBoost does not know a parameter, or refuses its value.
    """
    data = _matrices(material, model)
    if model.tuning is None:
        return _fit(data, material, model, params_of(model, material))
    from perennial_steps.training.search import search

    return search(lambda trial: _fit(data, material, model, params_of(model, material, trial)), material.metric, model)


def params_of(model: ModelSpec, material: Material, trial: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """XGBoost's parameters: the platform's, the search's, the spec's."""
    check_names(model)
    return {
        "objective": OBJECTIVE[model.kind],
        **(trial or {}),
        **model.params,
        "eval_metric": _watched(material),
        "seed": model.seed,
        "nthread": material.threads,
    }


def _watched(material: Material) -> str:
    # XGBoost's mean average precision takes labels of 0 and 1 only.
    graded = material.metric == "map" and bool((material.label > 1).any())
    return EVAL_METRIC["ndcg" if graded else material.metric]


def check_names(model: ModelSpec) -> None:
    """Raises:
    SpecError: a parameter is the platform's to set, or gives a model that does not answer as `model.kind` says.
    """
    for name in model.params:
        if name in RESERVED:
            raise _wrong(
                f"model.params.{name} is set by the platform",
                "seed: model.seed; threads: resources.train.cpu; metric: evaluation.metric",
            )
    objective = str(model.params.get("objective", OBJECTIVE[model.kind]))
    allowed = ALLOWED[model.kind]
    if not objective.startswith(allowed):
        raise _wrong(f"model.params.objective is {objective!r} for a {model.kind}", f"one of {', '.join(allowed)}")


def _matrices(material: Material, model: ModelSpec) -> tuple[Any, Any]:
    xgboost = load_xgboost()
    common = {
        "feature_names": material.schema.feature_names,
        "feature_types": material.schema.feature_types,
        "nthread": material.threads,
        "max_bin": int(model.params.get("max_bin", 256)),
    }

    def matrix(rows: slice, **more: Any) -> Any:
        return xgboost.QuantileDMatrix(
            material.matrix[rows], material.label[rows], qid=material.group_of(rows), **common, **more
        )

    fitted = matrix(material.parts.train.rows)
    return fitted, matrix(material.parts.validation.rows, ref=fitted)


def _fit(data: tuple[Any, Any], material: Material, model: ModelSpec, params: dict[str, Any]) -> Fitted:
    xgboost = load_xgboost()
    fitted, watched = data
    settings = {**params, "verbosity": 0}
    stop = [xgboost.callback.EarlyStopping(rounds=model.early_stopping)] if model.early_stopping else []
    try:
        _check_known(xgboost.Booster(settings, cache=[fitted]), model)
        booster = xgboost.train(
            settings,
            fitted,
            num_boost_round=model.rounds,
            evals=[(watched, "validation")],
            callbacks=stop,
            verbose_eval=False,
        )
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        raise _wrong(
            f"XGBoost refuses model.params: {_reason(error)}", "XGBoost's own parameters and values"
        ) from error
    if stop:
        booster = booster[: booster.best_iteration + 1]
    rows = material.parts.validation.rows
    score = booster.inplace_predict(material.matrix[rows]).astype(np.float64)
    reached = figure(material.metric, material.label[rows], score, material.group_of(rows))
    return Fitted(booster, params, booster.num_boosted_rounds(), reached)


def _check_known(booster: xgboost.Booster, model: ModelSpec) -> None:
    """XGBoost only warns of a parameter that it does not know, and trains without it.

    Raises:
        SpecError: one that is not in the configuration which XGBoost has made of them.
    """
    known = _keys(json.loads(booster.save_config())) | {"verbosity"}
    for name in model.params:
        if name not in known:
            guess = nearest(name, known)
            raise _wrong(
                f"model.params.{name} is not a parameter of XGBoost" + (f"; did you mean {guess!r}?" if guess else ""),
                "see https://xgboost.readthedocs.io/en/stable/parameter.html",
            )


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    return set().union(*map(_keys, value)) if isinstance(value, list) else set()


def better(metric: str, one: float, other: float) -> bool:
    """Whether `one` is the better figure; NaN never is."""
    return bool(np.isnan(other) or gain_of(metric, one, other) > 0)


def _reason(error: Exception) -> str:
    """What XGBoost says, without its stack trace: `Invalid Parameter format for max_depth ...`."""
    lines = [line for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
    text = lines[0] if lines else type(error).__name__
    return re.sub(r"^\[[\d:]+\] \S+: ", "", text)[:300]


def _wrong(what: str, expected: str) -> SpecError:
    return SpecError(
        what, where="pipeline.yaml: model.params", expected=expected, next="mend it, then run: perennial check"
    )
