"""One look at an A/B experiment: the log is read, and the versions are compared entity by entity."""

from __future__ import annotations

from functools import partial
from typing import Any

from perennial_spec.pipeline import PipelineSpec
from perennial_steps.experiments import logs, units
from perennial_steps.experiments.comparison import Comparison, compare
from perennial_steps.experiments.look import Asked, Look
from perennial_steps.experiments.moments import Moments
from perennial_steps.experiments.plots import draw_sequence
from perennial_steps.experiments.units import Found, Loss, Question

_LOSSES: dict[str, Loss] = {"log_loss": "log_loss", "mae": "absolute"}


def look(asked: Asked) -> Look:
    """Compare the versions by everything that has come by now.

    Raises:
        PlatformError: the store does not answer.
    """
    spec = asked.pipeline.spec
    experiment = spec.deployment.experiment
    question = Question(
        challenger=asked.challenger,
        champion=asked.champion,
        since=asked.since,
        now=asked.now,
        attribution=spec.experiment_attribution,
        loss=loss_of(spec) if experiment.measure == "label" else None,
        zero=experiment.unrewarded == "zero",
    )
    with logs.opened(asked.pipeline, asked.platform, "experiment") as connection:
        found = units.find(connection, question)
    compared = compare(found, spec.deployment, asked.now - asked.since)
    return Look(compared.judgement, _figures(found, compared), partial(draw_sequence, found.history, experiment))


def loss_of(spec: PipelineSpec) -> Loss:
    """The loss of one answer, by the metric that champion and challenger are judged by; one that is no mean has a neighbour that is."""
    classifier = spec.model.kind == "xgboost.classifier"
    return _LOSSES.get(spec.evaluation.metric, "brier" if classifier else "squared")


def _figures(found: Found, compared: Comparison) -> dict[str, Any]:
    gain = compared.effect
    return {
        "challenger": _arm(found.challenger, found.dealt[0]),
        "champion": _arm(found.champion, found.dealt[1]),
        "mixed": found.mixed,
        "effect": gain and gain.value,
        "effect_low": gain and gain.low,
        "effect_high": gain and gain.high,
    }


def _arm(of: Moments, dealt: int) -> dict[str, Any]:
    """`n` have been looked at, of the `dealt` that the version has answered."""
    return {"n": of.n, "dealt": dealt, "mean": of.mean if of.n else None}
