"""`deployment.experiment`: what it means, and what is refused because it would mean nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perennial_spec.errors import SpecError
from perennial_spec.load import load_pipeline


def test_an_experiment_begins_with_halves_and_ends_with_all(write_pipeline, good_text) -> None:
    spec = load_pipeline(write_pipeline(text=good_text + "deployment: {strategy: ab}\n")).spec
    assert spec.deployment.rollout == (0.5, 1.0)
    assert spec.experiment_attribution == timedelta(hours=1)
    seven = 7 * timedelta(hours=1)  # ingest, validate, train, evaluate, deploy, experiment, promote
    assert spec.run_limit == seven + timedelta(days=14)


def test_labels_are_waited_for_as_long_as_they_take(write_pipeline, good_text) -> None:
    spec = load_pipeline(
        write_pipeline(text=good_text + "deployment: {strategy: ab, experiment: {measure: label}}\n")
    ).spec
    assert spec.experiment_attribution == timedelta(hours=7)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "deployment: {experiment: {share: 20%}}",
            "experiment does nothing with strategy canary: expected strategy ab",
        ),
        ("deployment: {strategy: ab, steps: [50%, 100%]}", "steps does nothing with strategy ab: leave it out"),
        ("deployment: {strategy: ab, experiment: {share: 100%}}", "less than 1"),
        (
            "deployment: {strategy: ab, experiment: {min_duration: 3d, max_duration: 2d}}",
            "expected a min_duration of at most max_duration",
        ),
        (
            "deployment: {strategy: ab, experiment: {measure: label, unrewarded: zero}}",
            "unrewarded does nothing with measure label",
        ),
        (
            "deployment: {strategy: ab, experiment: {explore: 5%}}",
            "experiment.explore does nothing with strategy ab: leave it out",
        ),
        (
            "deployment: {strategy: bandit, experiment: {measure: label}}",
            "experiment.measure does nothing with strategy bandit: leave it out",
        ),
        (
            "deployment: {strategy: bandit, experiment: {unrewarded: zero}}\nmonitoring: {log: {share: 0%}}",
            "reads the prediction log, and monitoring.log.share is 0%",
        ),
        (
            "deployment: {strategy: ab}\nmonitoring: {log: {share: 0%}}",
            "reads the prediction log, and monitoring.log.share is 0%",
        ),
        (
            "deployment: {strategy: ab, experiment: {attribution: 14d}}",
            "ends after 2w, and looks at an entity 2w after its first answer",
        ),
    ],
)
def test_what_cannot_work_is_refused(write_pipeline, good_text, more: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        load_pipeline(write_pipeline(text=f"{good_text}{more}\n"))
    assert message in str(refused.value)


def test_a_bandit_needs_no_log_of_predictions(write_pipeline, good_text) -> None:
    text = good_text + "deployment: {strategy: bandit}\nmonitoring: {log: {share: 0%}}\n"
    assert load_pipeline(write_pipeline(text=text)).spec.deployment.rollout == (0.5, 1.0)


def test_a_ranker_is_not_judged_on_labels(write_pipeline, good_text) -> None:
    text = good_text.replace("xgboost.classifier", "xgboost.ranker\n  group: query_id").replace("roc_auc", "ndcg")
    with pytest.raises(SpecError, match="labels come back row by row, and not as lists"):
        load_pipeline(write_pipeline(text=text + "deployment: {strategy: ab, experiment: {measure: label}}\n"))
