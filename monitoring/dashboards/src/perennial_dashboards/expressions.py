"""The PromQL that several panels share. Functions return expressions in brackets where brackets matter."""

from __future__ import annotations

from perennial_spec import names

ONE = 'pipeline="$pipeline"'
"""The matcher of a dashboard of one pipeline."""
CHOSEN = 'pipeline=~"$pipeline"'
"""The matcher of a dashboard of several pipelines."""
FAILED = 'code=~"5.."'
ASKED = 'protocol!="shadow"'
"""Requests that a client sent: shadow versions see copies."""
RETRAIN = 'action="retrain"'
ACCEPTED = 'decision="accepted"'
PER = "[$__rate_interval]"
WINDOWS = ("5m", "1h", "1d")
"""Those of monitoring.drift.window."""
PSI = "perennial:feature_psi"
ROWS = "perennial:feature_rows"
EVIDENCE = "perennial:feature_evidence"
EVIDENCE_LIMIT = "perennial:feature_evidence:limit"
MISSING = "perennial:feature_missing_share"
UNSEEN = "perennial:feature_unseen_share"
OUT_OF_RANGE = "perennial:out_of_range_share"
ATTRIBUTION_SHIFT = "perennial:attribution_shift"
JUDGED = "perennial:feature_psi:judged"
LIVE = "perennial:feature_live_share"
REFERENCE = "perennial:feature_reference_share"


def series(name: str, *matchers: str) -> str:
    """A selector."""
    return f"{name}{{{', '.join(matchers)}}}"


def rate(name: str, *matchers: str, by: str) -> str:
    """Per second, summed by labels over replicas."""
    return f"sum by ({by}) (rate({series(name, *matchers)}{PER}))"


def most(name: str, *matchers: str, by: str) -> str:
    """A gauge of which replicas tell the same, once."""
    return f"max by ({by}) ({series(name, *matchers)})"


def failed_share(*matchers: str, by: str) -> str:
    """Share of the requests that the server could not answer; nothing where there were none."""
    every = rate(names.REQUESTS, ASKED, *matchers, by=by)
    return f"({rate(names.REQUESTS, ASKED, FAILED, *matchers, by=by)} or 0 * {every}) / ({every} > 0)"


def latency(quantile: float, *matchers: str, by: str) -> str:
    """A quantile of the answers' times, in seconds."""
    return f"histogram_quantile({quantile:g}, {rate(names.REQUEST_SECONDS + '_bucket', *matchers, by=f'le, {by}')})"


def windowed(record: str, *matchers: str) -> str:
    """A record of drift, over the window that each pipeline's spec names."""
    every = " or ".join(series(f"{record}:{window}", *matchers) for window in WINDOWS)
    return f"(({every}) and on (pipeline, window) {names.DRIFT_WINDOW} > 0)"


def unlabelled(record: str, *matchers: str) -> str:
    """The same of a record whose series do not name their window."""
    chosen = []
    for window in WINDOWS:
        asked = series(names.DRIFT_WINDOW, f'window="{window}"')
        chosen.append(f"({series(f'{record}:{window}', *matchers)} and on (pipeline) {asked} > 0)")
    return f"({' or '.join(chosen)})"


def shares(*matchers: str) -> str:
    """Live shares of bins over the window that each pipeline's spec names."""
    return unlabelled(LIVE, *matchers)


def of_champion(expression: str) -> str:
    """Of the versions that are champion, only."""
    return f"({expression} and on (pipeline, version) {names.CHAMPION} > 0)"


def drift(matcher: str) -> str:
    """Each pipeline's worst feature, as a share of the threshold at which it alerts.

    0 where nothing is beyond chance; nothing where too few rows came.
    """
    limit = most(names.DRIFT_THRESHOLD, matcher, by="pipeline")
    rows = most(names.DRIFT_MIN_ROWS, matcher, by="pipeline")
    enough = f"max by (pipeline) ({windowed(ROWS, matcher)} >= on (pipeline) group_left () {rows})"
    return f"(max by (pipeline) ({series(JUDGED, matcher)}) or 0 * {enough}) / {limit}"


def data_age(matcher: str) -> str:
    """Seconds since the newest row of each pipeline's data."""
    return f"time() - {most(names.DATA_LAST_TIMESTAMP, matcher, by='pipeline')}"


def model_age(matcher: str) -> str:
    """Seconds since the champion of each pipeline was trained."""
    trained = of_champion(series(names.MODEL_TRAINED, matcher))
    return f"time() - max by (pipeline) ({trained})"


def firing(*matchers: str) -> str:
    """Alerts of the platform that fire, but for the one that always does."""
    ours = ('alertname=~"Perennial.+"', f'alertname!="{names.ALERT_WATCHDOG}"')
    return series("ALERTS", 'alertstate="firing"', *ours, *matchers)


def firing_for() -> str:
    """Seconds since the condition of each alert that fires began to hold."""
    return f"(time() - ALERTS_FOR_STATE) and ignoring (alertstate) {firing()}"


def fired(*matchers: str, by: str) -> str:
    """Alerts that fired at any time within a step, however long it is."""
    return f"max by ({by}) (max_over_time({firing(*matchers)}[$__interval]))"


def accepted(matcher: str) -> str:
    """There while a run was accepted within the last minute."""
    return f"sum by (pipeline) (increase({series(names.DECISIONS, matcher, ACCEPTED)}[1m])) > 0"


def succeeded(matcher: str) -> str:
    """There while a version is champion that was not a minute ago, when another was."""
    champion = series(names.CHAMPION, matcher)
    now, before = f"max by (pipeline, version) ({champion})", f"max by (pipeline, version) ({champion} offset 1m)"
    return f"({now} unless {before}) and on (pipeline) {before}"
