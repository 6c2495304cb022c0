"""The words in which Prometheus is asked about a pipeline. Pure."""

from __future__ import annotations

from perennial_spec import names
from perennial_steps.prometheus import quoted

PSI = "perennial:feature_psi"
"""Recorded for each window, whose name follows a colon; so are the next two."""
LIVE_SHARE = "perennial:feature_live_share"
ROWS = "perennial:feature_rows"
OVER = "perennial:feature_psi:over"
"""What an alert of drift compares with the threshold, and finds above it."""
REFERENCE_SHARE = "perennial:feature_reference_share"
QUALITY_LOW, QUALITY_HIGH = names.QUALITY_LOWER, names.QUALITY_UPPER


def matching(**labels: str) -> str:
    """`{pipeline="flights", version="2"}`."""
    return "{" + ", ".join(f"{name}={quoted(text)}" for name, text in labels.items()) + "}"


def threshold(pipeline: str) -> str:
    return f"max({names.DRIFT_THRESHOLD}{matching(pipeline=pipeline)})"


def window(pipeline: str) -> str:
    """One series, whose label `window` is what is asked for."""
    return f"max by (window) ({names.DRIFT_WINDOW}{matching(pipeline=pipeline)})"


def over(pipeline: str, version: str, *, predictions: bool) -> str:
    """Features above the threshold, or the predictions."""
    sign = "=" if predictions else "!="
    which = matching(pipeline=pipeline, version=version)[:-1] + f", feature{sign}{quoted(names.PREDICTION_FEATURE)}}}"
    return f"max by (feature) ({OVER}{which})"


def worst(pipeline: str, version: str, window: str, most: int) -> str:
    """The features that have moved most, whether or not that is beyond the threshold."""
    return f"topk({most}, max by (feature) ({PSI}:{window}{matching(pipeline=pipeline, version=version)}))"


def peak(pipeline: str, version: str, window: str, seconds: float) -> str:
    """The largest PSI of each feature within the seconds before the moment that is asked about."""
    series = f"{PSI}:{window}{matching(pipeline=pipeline, version=version)}"
    return f"max by (feature) (max_over_time({series}[{max(1, round(seconds))}s]))"


def by_bin(metric: str, pipeline: str, version: str, feature: str) -> str:
    return f"max by (bin) ({metric}{matching(pipeline=pipeline, version=version, feature=feature)})"


def rows(pipeline: str, version: str, window: str) -> str:
    return f"max by (feature) ({ROWS}:{window}{matching(pipeline=pipeline, version=version)})"


def one(metric: str, /, **labels: str) -> str:
    """The one value that series of these labels agree on."""
    return f"max({metric}{matching(**labels)})"


def firing(pipeline: str) -> str:
    """Names of the alerts of the pipeline that fire, and of those of the platform, which have no pipeline."""
    return f"max by (alertname) ({alerts_firing(pipeline)})"


def alerts_firing(pipeline: str) -> str:
    """The series of those alerts, without the one that always fires."""
    mine = quoted(_literally(pipeline) + "|")
    return f'ALERTS{{alertstate="firing", alertname!="{names.ALERT_WATCHDOG}", pipeline=~{mine}}}'


def _literally(text: str) -> str:
    """`text` in a regular expression; a pipeline's name holds letters, digits and hyphens."""
    return "".join(each if each.isalnum() or each == "-" else f"\\{each}" for each in text)
