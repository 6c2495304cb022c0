"""The judgement of a rollout step: figures and limits in, verdict and sentences out."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_spec.deployment import AbortOn, Deployment
from perennial_spec.monitoring import Quality
from perennial_spec.step import Verdict
from perennial_steps.analysis import (
    Figures,
    Histogram,
    LiveQuality,
    judge,
    judge_early,
    psi,
    psi_noise,
    significantly_more,
    wilson_lower,
)

LIMITS = Deployment.model_validate(
    {"abort_on": [{"error_rate": "1%"}, {"latency_p99": "50ms"}, {"prediction_psi": 0.25}], "min_requests": 50}
)
FLAT = {"low": 0.5, "high": 0.5}


def figures(requests: float = 1000, errors: float = 0, p99: float | None = 0.01, high: float = 0.5) -> Figures:
    """A version whose predictions fall into `high` with that share, against a reference of one half."""
    live = {"low": requests * (1 - high), "high": requests * high}
    return Figures(requests, errors, p99 if requests else None, Histogram(live, FLAT, 100_000))


NONE = Figures()
GOOD = figures()

TABLE = [
    # what, challenger, champion, verdict, what a sentence says
    ("all is well", GOOD, GOOD, Verdict.PASS, "error rate 0% <= 1%"),
    ("no champion traffic at 100%", GOOD, NONE, Verdict.PASS, "latency p99 10 ms <= 50 ms"),
    ("no requests", NONE, GOOD, Verdict.INCONCLUSIVE, "0 requests to the challenger, 50 are needed"),
    ("one request too few, though it failed", figures(49, 49), GOOD, Verdict.INCONCLUSIVE, "49 requests"),
    ("just enough requests", figures(50), GOOD, Verdict.PASS, "error rate"),
    ("errors at the limit", figures(1000, 10), figures(1000, 10), Verdict.PASS, "error rate 1% <= 1%"),
    ("errors above the limit", figures(1000, 11), figures(1000, 9), Verdict.FAIL, "error rate 1.1% > 1%"),
    ("errors, champion too quiet to compare", figures(1000, 50), figures(40, 4), Verdict.FAIL, "error rate 5% > 1%"),
    (
        "errors that both have",
        figures(1000, 50),
        figures(1000, 60),
        Verdict.INCONCLUSIVE,
        "the champion's 6%: not the model's",
    ),
    ("errors that both have, more of them", figures(1000, 60), figures(1000, 50), Verdict.FAIL, "error rate 6% > 1%"),
    (
        "below the limit, far above the champion",
        figures(10_000, 90),
        figures(10_000, 0),
        Verdict.FAIL,
        "significantly above",
    ),
    ("slow", figures(p99=0.08), figures(p99=0.02), Verdict.FAIL, "latency p99 80 ms > 50 ms"),
    ("slow like the champion", figures(p99=0.08), figures(p99=0.09), Verdict.INCONCLUSIVE, "the champion's 90 ms"),
    ("latency unknown", figures(p99=None), GOOD, Verdict.INCONCLUSIVE, "no latency was measured"),
    ("latency not a number of ms but infinite", figures(p99=math.inf), GOOD, Verdict.FAIL, "latency p99 inf ms"),
    ("predictions have moved", figures(high=0.9), GOOD, Verdict.FAIL, "prediction PSI"),
    (
        "predictions have moved, the champion's further",
        figures(high=0.8),
        figures(high=0.9),
        Verdict.PASS,
        "the champion's is higher",
    ),
    ("two reasons are both given", figures(1000, 20, high=0.9), GOOD, Verdict.FAIL, "prediction PSI"),
    ("failure wins over inconclusive", figures(1000, 20, p99=None), GOOD, Verdict.FAIL, "error rate 2% > 1%"),
    ("no reference", Figures(1000, 0, 0.01), GOOD, Verdict.INCONCLUSIVE, "against a reference"),
]


@pytest.mark.parametrize(
    ("challenger", "champion", "verdict", "says"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_verdict(challenger: Figures, champion: Figures, verdict: Verdict, says: str) -> None:
    judgement = judge(challenger, champion, LIMITS)
    assert judgement.verdict is verdict
    assert says in "; ".join(judgement.sentences)


def test_without_limits_only_the_champion_is_the_measure() -> None:
    free = Deployment.model_validate({"abort_on": []})
    assert judge(figures(1000, 500, 9.0, 0.99), NONE, free).verdict is Verdict.PASS
    assert judge(figures(1000, 500, 9.0, 0.99), GOOD, free).verdict is Verdict.FAIL


def test_few_rows_do_not_fail_on_the_noise_of_their_predictions() -> None:
    strict = Deployment.model_validate({"abort_on": [{"prediction_psi": 0.02}], "min_requests": 20})
    some = figures(60, high=0.62)
    assert (some.prediction_psi or 0) > 0.02
    judgement = judge(some, NONE, strict)
    assert judgement.verdict is Verdict.PASS
    assert "within the noise of so few rows" in judgement.sentences[0]
    assert judge(figures(6000, high=0.62), NONE, strict).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("requests", "errors", "fails"),
    [(1000, 100, True), (50, 4, False), (200, 5, False), (100, 30, True), (1000, 11, False)],
)
def test_an_error_rate_beyond_doubt_need_not_wait(requests: int, errors: int, fails: bool) -> None:
    assert (judge_early(figures(requests, errors), LIMITS) is not None) is fails


def test_other_limits_are_never_judged_early() -> None:
    assert judge_early(figures(1000, 0, 9.0, 0.99), LIMITS) is None
    assert judge_early(NONE, LIMITS) is None


# -- properties --

counts = st.integers(0, 100_000)
limits = st.lists(
    st.one_of(
        st.builds(AbortOn, error_rate=st.floats(0.001, 0.5)),
        st.builds(AbortOn, latency_p99=st.sampled_from(["10ms", "100ms", "1s"])),
        st.builds(AbortOn, prediction_psi=st.floats(0.01, 1)),
    ),
    max_size=4,
)


@st.composite
def any_figures(draw: st.DrawFn) -> Figures:
    requests = draw(counts)
    bins = draw(st.lists(st.integers(0, 1000), min_size=2, max_size=12))
    live = {str(place): float(count) for place, count in enumerate(bins)}
    reference = {str(place): 1 / len(bins) for place in range(len(bins))}
    p99 = draw(st.one_of(st.none(), st.floats(0, 10)))
    return Figures(
        requests, draw(st.integers(0, requests)), p99, Histogram(live, reference, draw(st.integers(1, 10**7)))
    )


@given(any_figures(), any_figures(), limits)
def test_every_judgement_has_a_verdict_with_reasons(
    challenger: Figures, champion: Figures, abort_on: list[AbortOn]
) -> None:
    deployment = Deployment(abort_on=tuple(abort_on))
    judgement = judge(challenger, champion, deployment)
    assert judgement.verdict in {Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE}
    assert judgement.sentences or (judgement.verdict is Verdict.PASS and not abort_on)
    if challenger.requests < deployment.min_requests:
        assert judgement.verdict is Verdict.INCONCLUSIVE


@given(any_figures(), any_figures(), limits, st.integers(1, 1000))
def test_more_errors_never_make_a_judgement_better(
    challenger: Figures, champion: Figures, abort_on: list[AbortOn], more: int
) -> None:
    order = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
    deployment = Deployment(abort_on=tuple(abort_on))
    worse = Figures(
        challenger.requests,
        min(challenger.requests, challenger.errors + more),
        challenger.latency_p99,
        challenger.predictions,
    )
    before, after = judge(challenger, champion, deployment).verdict, judge(worse, champion, deployment).verdict
    assert order.index(after) >= order.index(before)


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 10_000), min_size=2, max_size=30), st.randoms())
def test_psi_is_never_negative_and_zero_only_for_equal_shares(live: dict[str, int], chance: random.Random) -> None:
    weights = {name: chance.uniform(0.01, 1) for name in live}
    reference = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    value = psi(Histogram({k: float(v) for k, v in live.items()}, reference))
    assert value is None if not sum(live.values()) else value is not None and value >= 0


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_the_interval_of_a_share_is_below_it(errors: int, more: int) -> None:
    requests = errors + more
    assert 0 <= wilson_lower(errors, requests) <= errors / requests + 1e-12


# -- known values --


def test_psi_has_the_value_that_one_computes_by_hand() -> None:
    # 1000 rows, 2 bins: (300.5/1001 - .5) ln(300.5/1001/.5) + (700.5/1001 - .5) ln(700.5/1001/.5)
    assert psi(Histogram({"low": 300, "high": 700}, FLAT)) == pytest.approx(0.16910, abs=1e-5)
    assert psi(Histogram({}, FLAT)) is None
    assert psi(Histogram({"low": 3}, {})) is None


def test_psi_agrees_with_the_reference_of_the_model() -> None:
    import numpy as np

    from perennial_features.reference import Reference
    from perennial_features.schema import Feature, FeatureSchema

    generator = np.random.default_rng(1)
    matrix = generator.normal(size=(5000, 1)).astype(np.float32)
    schema = FeatureSchema(inputs=(), features=(Feature(name="x", kind="numeric"),))
    reference = Reference.of(matrix, schema, generator.uniform(size=5000))
    live = reference.count(matrix[:700] + 0.3, generator.uniform(size=700) ** 2)
    by_bin = dict(zip(reference.series, zip(live.tolist(), reference.shares.tolist(), strict=True), strict=True))
    for feature, expected in reference.psi(live).items():
        ours = {name: pair for (of, name), pair in by_bin.items() if of == feature}
        found = psi(Histogram({b: p[0] for b, p in ours.items()}, {b: p[1] for b, p in ours.items()}))
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(("bins", "rows"), [(10, 500), (10, 5000), (2, 500), (20, 2000)])
def test_noise_stays_below_its_bound_when_nothing_has_moved(bins: int, rows: int) -> None:
    import numpy as np

    generator = np.random.default_rng(bins * rows)
    reference = {str(place): 1 / bins for place in range(bins)}
    above, values = 0, []
    for counts in generator.multinomial(rows, list(reference.values()), size=4000):
        histogram = Histogram({str(place): float(count) for place, count in enumerate(counts)}, reference)
        value = psi(histogram) or 0.0
        values.append(value)
        above += value > psi_noise(histogram)
    assert above <= 12  # 2 are expected of 4000 at 0.9995
    assert np.quantile(values, 0.99) > 0.5 * psi_noise(histogram)  # and it is not so wide that nothing is ever found


def labelled(labels: float, lower: float, upper: float) -> Figures:
    return replace(GOOD, quality=LiveQuality(labels, (lower + upper) / 2, lower, upper))


@pytest.mark.parametrize(
    ("metric", "challenger", "champion", "verdict"),
    [
        ("roc_auc", labelled(500, 0.70, 0.74), labelled(5000, 0.75, 0.77), Verdict.FAIL),
        ("roc_auc", labelled(499, 0.70, 0.74), labelled(5000, 0.75, 0.77), Verdict.PASS),
        ("roc_auc", labelled(500, 0.70, 0.74), labelled(499, 0.75, 0.77), Verdict.PASS),
        ("roc_auc", labelled(500, 0.70, 0.75), labelled(5000, 0.75, 0.77), Verdict.PASS),
        ("roc_auc", labelled(500, 0.80, 0.90), labelled(5000, 0.75, 0.77), Verdict.PASS),
        ("rmse", labelled(500, 0.80, 0.90), labelled(5000, 0.75, 0.77), Verdict.FAIL),
        ("rmse", labelled(500, 0.70, 0.74), labelled(5000, 0.75, 0.77), Verdict.PASS),
        ("roc_auc", GOOD, GOOD, Verdict.PASS),
    ],
)
def test_quality_fails_when_the_intervals_do_not_touch(
    metric: str, challenger: Figures, champion: Figures, verdict: Verdict
) -> None:
    wanted = Quality.model_validate({"metric": metric, "min": 0.5})
    judgement = judge(challenger, champion, LIMITS, wanted)
    assert judgement.verdict is verdict
    assert metric in "; ".join(judgement.sentences)
    assert metric not in "; ".join(judge(challenger, champion, LIMITS).sentences)


def test_a_difference_needs_more_than_a_few_errors() -> None:
    assert not significantly_more(4, 100, 0, 100_000)
    assert significantly_more(20, 1000, 20, 20_000)
    assert not significantly_more(20, 1000, 15, 1000)
    assert not significantly_more(20, 1000, 0, 0)


def test_a_limit_of_a_second_is_told_without_an_exponent() -> None:
    deployment = Deployment.model_validate({"abort_on": [{"latency_p99": "1s"}], "min_requests": 50})
    assert "latency p99 12.3 ms <= 1000 ms" in judge(figures(p99=0.012345), GOOD, deployment).sentences
