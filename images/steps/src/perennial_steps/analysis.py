"""The judgement of a rollout step: figures and limits in, verdict and sentences out. Pure; the figures come from `figures`.

Each limit of `abort_on` is held against the challenger. The champion's figures over the same minutes are the baseline that tells the
model's fault from the platform's: where the champion is beyond the same limit and no better, sending traffic back to it helps nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from perennial_spec.deployment import AbortOn, Deployment
from perennial_spec.model import LOWER_IS_BETTER
from perennial_spec.monitoring import Quality
from perennial_spec.step import Verdict

Z = 3.29
"""One-sided normal quantile of 0.9995: a rollout is judged many times, and must not be aborted by chance."""
MIN_ERRORS = 5
"""Fewer errors never count as a significant difference."""


@dataclass(frozen=True)
class Histogram:
    """Live counts by bin beside the reference shares of the same bins."""

    live: Mapping[str, float] = field(default_factory=dict)
    """Rows by bin; a bin that was never seen may be missing."""
    reference: Mapping[str, float] = field(default_factory=dict)
    """Share of the model's reference data by bin; none is 0."""
    reference_rows: float = math.inf


@dataclass(frozen=True)
class LiveQuality:
    """What labels say of one version, over the window of `monitoring.quality`."""

    labels: float
    value: float
    lower: float
    """Ends of the 95% interval."""
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.lower:.4g} to {self.upper:.4g})"


@dataclass(frozen=True)
class Figures:
    """What one version did within the window."""

    requests: float = 0
    errors: float = 0
    """Requests that ended with a 5xx: the server's fault, or the model's."""
    latency_p99: float | None = None
    """Seconds; None without requests."""
    predictions: Histogram = field(default_factory=Histogram)
    quality: LiveQuality | None = None
    """None before the first labels, and where quality is not measured."""

    @property
    def error_rate(self) -> float | None:
        return self.errors / self.requests if self.requests else None

    @property
    def prediction_psi(self) -> float | None:
        """PSI of the predictions against the version's own reference; None without predictions or reference."""
        return psi(self.predictions)


@dataclass(frozen=True)
class Judgement:
    """What the figures say: `pass`, `fail` or `inconclusive`, and why."""

    verdict: Verdict
    sentences: tuple[str, ...]


def psi(histogram: Histogram) -> float | None:
    """Population stability index: sum over bins of (live - reference) * ln(live / reference), half a count added to each live bin.

    The same formula as in monitoring/rules/drift-recording.yml. None when there is nothing to compare.
    """
    rows = sum(histogram.live.get(name, 0.0) for name in histogram.reference)
    if rows <= 0:
        return None
    total = rows + 0.5 * len(histogram.reference)
    shares = {name: (histogram.live.get(name, 0.0) + 0.5) / total for name in histogram.reference}
    return sum((shares[name] - share) * math.log(shares[name] / share) for name, share in histogram.reference.items())


def psi_noise(histogram: Histogram) -> float:
    """What PSI stays below when nothing has moved, with probability 0.9995.

    Without drift PSI / (1/n + 1/m) follows a chi-squared distribution with bins - 1 degrees of freedom (Yurdakul, "Statistical properties
    of the population stability index", 2018); its quantile is Wilson and Hilferty's (1931).
    """
    rows = sum(histogram.live.get(name, 0.0) for name in histogram.reference)
    freedom = len(histogram.reference) - 1
    if rows <= 0 or freedom < 1:
        return math.inf
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + Z * math.sqrt(spread)) ** 3
    return quantile * (1 / rows + 1 / histogram.reference_rows)


def judge(challenger: Figures, champion: Figures, deployment: Deployment, quality: Quality | None = None) -> Judgement:
    """The verdict on a step that has been watched for its whole `bake`.

    Args:
        challenger, champion: figures over the same minutes.
        deployment: limits, and the fewest requests that are judged.
        quality: how live quality is measured, if it is (`monitoring.quality`).
    """
    if challenger.requests < deployment.min_requests:
        few = f"{challenger.requests:.0f} requests to the challenger, {deployment.min_requests} are needed"
        return Judgement(Verdict.INCONCLUSIVE, (few,))
    found = [_against_limit(limit, challenger, champion, deployment.min_requests) for limit in deployment.abort_on]
    if worse := _worse_than_champion(challenger, champion):
        found.append(Judgement(Verdict.FAIL, (worse,)))
    if quality:
        found.append(_quality(quality, challenger.quality, champion.quality))
    return _together(found)


def judge_early(challenger: Figures, deployment: Deployment) -> Judgement | None:
    """A failure that need not wait for the end of `bake`: the error rate is above its limit beyond doubt. None otherwise."""
    for limit in deployment.abort_on:
        rate = challenger.error_rate
        if limit.error_rate is None or rate is None or challenger.errors < MIN_ERRORS:
            continue
        if wilson_lower(challenger.errors, challenger.requests) > limit.error_rate:
            return Judgement(Verdict.FAIL, (_over("error rate", _percent(rate), _percent(limit.error_rate)),))
    return None


def wilson_lower(errors: float, requests: float, z: float = Z) -> float:
    """Lower end of Wilson's score interval (1927) for a share of `errors` among `requests`."""
    share = errors / requests
    middle = share + z * z / (2 * requests)
    half = z * math.sqrt(share * (1 - share) / requests + z * z / (4 * requests * requests))
    return max(0.0, (middle - half) / (1 + z * z / requests))


def significantly_more(errors: float, requests: float, base_errors: float, base_requests: float) -> bool:
    """Whether one share of errors is above another beyond chance: one-sided two-proportion z-test, pooled."""
    if errors < MIN_ERRORS or not requests or not base_requests:
        return False
    pooled = (errors + base_errors) / (requests + base_requests)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / requests + 1 / base_requests))
    return errors / requests - base_errors / base_requests > Z * deviation


def _against_limit(limit: AbortOn, challenger: Figures, champion: Figures, min_requests: int) -> Judgement:
    baseline = champion if champion.requests >= min_requests else None
    if limit.error_rate is not None:
        return _error_rate(limit.error_rate, challenger, baseline)
    if limit.latency_p99 is not None:
        return _latency(limit.latency_p99.total_seconds(), challenger, baseline)
    return _predictions(limit.prediction_psi or math.inf, challenger, baseline)


def _error_rate(limit: float, challenger: Figures, baseline: Figures | None) -> Judgement:
    rate = challenger.error_rate or 0.0
    if rate <= limit:
        return Judgement(Verdict.PASS, (f"error rate {_percent(rate)} <= {_percent(limit)}",))
    over = _over("error rate", _percent(rate), _percent(limit))
    shared = baseline.error_rate if baseline else None
    if shared is not None and shared > limit and rate <= shared:
        return Judgement(
            Verdict.INCONCLUSIVE, (f"{over}, and the champion's {_percent(shared)}: not the model's fault",)
        )
    return Judgement(Verdict.FAIL, (over,))


def _latency(limit: float, challenger: Figures, baseline: Figures | None) -> Judgement:
    p99 = challenger.latency_p99
    if p99 is None:
        return Judgement(Verdict.INCONCLUSIVE, ("no latency was measured",))
    if p99 <= limit:
        return Judgement(Verdict.PASS, (f"latency p99 {_milliseconds(p99)} <= {_milliseconds(limit)}",))
    over = _over("latency p99", _milliseconds(p99), _milliseconds(limit))
    shared = baseline.latency_p99 if baseline else None
    if shared is not None and shared > limit and p99 <= shared:
        why = f"{over}, and the champion's {_milliseconds(shared)}: not the model's fault"
        return Judgement(Verdict.INCONCLUSIVE, (why,))
    return Judgement(Verdict.FAIL, (over,))


def _predictions(limit: float, challenger: Figures, baseline: Figures | None) -> Judgement:
    value = challenger.prediction_psi
    if value is None:
        return Judgement(Verdict.INCONCLUSIVE, ("no prediction was counted against a reference",))
    noise = psi_noise(challenger.predictions)
    if value <= limit:
        return Judgement(Verdict.PASS, (f"prediction PSI {value:.2f} <= {limit:.2f}",))
    over = _over("prediction PSI", f"{value:.2f}", f"{limit:.2f}")
    if value <= noise:
        return Judgement(Verdict.PASS, (f"{over}, within the noise of so few rows ({noise:.2f})",))
    shared = baseline.prediction_psi if baseline else None
    if shared is not None and shared > value:
        # The world has moved for both, and further for the champion: to go back would make it worse.
        return Judgement(Verdict.PASS, (f"{over}, and the champion's is higher ({shared:.2f})",))
    return Judgement(Verdict.FAIL, (over,))


def _worse_than_champion(challenger: Figures, champion: Figures) -> str | None:
    ours, theirs = challenger.error_rate, champion.error_rate
    if ours is None or theirs is None:
        return None
    if not significantly_more(challenger.errors, challenger.requests, champion.errors, champion.requests):
        return None
    return f"error rate {_percent(ours)} is significantly above the champion's {_percent(theirs)}"


def _quality(wanted: Quality, challenger: LiveQuality | None, champion: LiveQuality | None) -> Judgement:
    """Worse when the intervals do not even touch. Labels that have not come hold nobody up: the watch after a promotion waits for them."""
    for whose, found in (("challenger", challenger), ("champion", champion)):
        labels = found.labels if found else 0
        if labels < wanted.min_labels:
            few = f"{wanted.metric} is not compared: {labels:.0f} labels of the {whose}, {wanted.min_labels} are needed"
            return Judgement(Verdict.PASS, (few,))
    assert challenger is not None
    assert champion is not None
    lower_is_better = wanted.metric in LOWER_IS_BETTER
    beyond = challenger.lower > champion.upper if lower_is_better else challenger.upper < champion.lower
    if beyond:
        way = "above" if lower_is_better else "below"
        return Judgement(Verdict.FAIL, (f"{wanted.metric} {challenger} is {way} the champion's {champion}",))
    return Judgement(Verdict.PASS, (f"{wanted.metric} {challenger}, the champion's {champion}",))


def _together(found: list[Judgement]) -> Judgement:
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if any(each.verdict is verdict for each in found):
            return Judgement(verdict, tuple(_sentences(found, verdict)))
    return Judgement(Verdict.PASS, tuple(_sentences(found, Verdict.PASS)))


def _sentences(found: list[Judgement], verdict: Verdict) -> Iterator[str]:
    for each in found:
        if each.verdict is verdict:
            yield from each.sentences


def _over(what: str, value: str, limit: str) -> str:
    return f"{what} {value} > {limit}"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def _milliseconds(seconds: float) -> str:
    return f"{float(f'{seconds * 1000:.3g}'):g} ms"  # three digits, and no exponent below a million
