"""Hyper-parameter search with Optuna's tree-structured Parzen estimator (Bergstra et al., 2011)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perennial_spec.model import LOWER_IS_BETTER, ModelSpec

if TYPE_CHECKING:
    import optuna

    from perennial_steps.training.fit import Fitted

log = logging.getLogger(__name__)

START = {
    "max_depth": 6,
    "learning_rate": 0.1,
    "min_child_weight": 1.0,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
    "reg_lambda": 1.0,
}
"""Tried first: a search never ends with less than sensible defaults."""
_OTHER_NAMES = {"eta": "learning_rate", "lambda": "reg_lambda"}


def search(attempt: Callable[[Mapping[str, Any]], Fitted], metric: str, model: ModelSpec) -> Fitted:
    """The best of `tuning.trials` attempts, or of as many as `tuning.timeout` allows; at least one. Seeded by `model.seed`.

    Args:
        attempt: fits with these parameters. Those that the spec fixes are not searched.
        metric: the spec's, on the validation part.
    """
    import optuna

    from perennial_steps.training.fit import better

    if model.tuning is None:
        raise ValueError("the spec asks for no search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fixed = {_OTHER_NAMES.get(name, name) for name in model.params}
    free = [name for name in START if name not in fixed]
    best: list[Fitted] = []
    tried: list[dict[str, Any]] = []

    def objective(trial: optuna.Trial) -> float:
        params = {name: _suggest(trial, name) for name in free}
        found = attempt(params)
        if not best or better(metric, found.validation, best[0].validation):
            best[:] = [found]
        tried.append({"trial": trial.number, metric: found.validation, "rounds": found.rounds, **params})
        log.info(
            "trial %d of %d: %s %.4f, best %.4f",
            trial.number + 1,
            model.tuning.trials if model.tuning else 0,
            metric,
            found.validation,
            best[0].validation,
        )
        return found.validation

    direction = "minimize" if metric in LOWER_IS_BETTER else "maximize"
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=model.seed))
    study.enqueue_trial({name: START[name] for name in free})
    study.optimize(objective, n_trials=model.tuning.trials, timeout=model.tuning.timeout.total_seconds())
    return replace(best[0], trials=tried)


def _suggest(trial: optuna.Trial, name: str) -> int | float:
    """Ranges that hold the optimum of most tables."""
    if name == "max_depth":
        depth: int = trial.suggest_int(name, 3, 10)
        return depth
    low, high, log_scale = {
        "learning_rate": (0.02, 0.3, True),
        "min_child_weight": (1.0, 100.0, True),
        "subsample": (0.5, 1.0, False),
        "colsample_bytree": (0.5, 1.0, False),
        "reg_lambda": (0.01, 30.0, True),
    }[name]
    value: float = trial.suggest_float(name, low, high, log=log_scale)
    return value
