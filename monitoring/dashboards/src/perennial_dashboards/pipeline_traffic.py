"""One pipeline: who answers, how fast, and what fails."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from perennial_dashboards import expressions as of
from perennial_dashboards.expressions import ONE
from perennial_dashboards.panels import Lines, Query, Row
from perennial_spec import names

TRAFFIC = Row(
    "Traffic",
    (
        Lines(
            "Route",
            "Share of the traffic that each version is given.",
            units.PercentUnit,
            (Query(of.most(names.ROUTE_WEIGHT, ONE, by="version"), "version {{version}}"),),
            width=8,
            stacked=True,
            high=1,
        ),
        Lines(
            "Requests by version",
            "Requests that clients sent, by the version that answered; without one where none had been chosen yet.",
            units.RequestsPerSecond,
            (Query(of.rate(names.REQUESTS, ONE, of.ASKED, by="version"), "version {{version}}"),),
            width=8,
            runbook=names.ALERT_NO_DATA,
        ),
        Lines(
            "Answers by status",
            "Requests by the status of their answer: 4xx were refused, 5xx failed.",
            units.RequestsPerSecond,
            (Query(f"{of.rate(names.REQUESTS, ONE, of.ASKED, by='code')} > 0", "{{code}}"),),
            width=8,
            stacked=True,
        ),
        Lines(
            "Latency",
            "From the first byte of a request to its answer, within the server: median and 99th percentile by version.",
            units.Seconds,
            (
                Query(of.latency(0.99, ONE, by="version"), "p99 of version {{version}}"),
                Query(of.latency(0.5, ONE, by="version"), "median of version {{version}}"),
                Query(f"max({of.series(names.LATENCY_LIMIT, ONE)})", "limit of p99", limit=True),
            ),
            width=8,
            runbook=names.ALERT_LATENCY,
        ),
        Lines(
            "Failed requests",
            "Share of the requests of the last 5 minutes that were answered with 5xx; the dashed line is monitoring.service.error_rate.",
            units.PercentUnit,
            (
                Query(f"max({of.series('perennial:request_errors:ratio5m', ONE)})", "failed"),
                Query(f"max({of.series(names.ERROR_RATE_LIMIT, ONE)})", "limit", limit=True),
            ),
            width=8,
            decimals=2,
            runbook=names.ALERT_ERRORS,
        ),
        Lines(
            "Rows predicted",
            "A request may ask for many rows.",
            units.RowsPerSecond,
            (Query(of.rate(names.PREDICTIONS, ONE, by="version"), "version {{version}}"),),
            width=8,
        ),
        Lines(
            "Mean reward",
            "What clients reported as reward, by the version that earned it: what a bandit goes by.",
            units.NoUnit,
            (
                Query(
                    f"{of.most(names.REWARD_SUM, ONE, by='version')} / {of.most(names.REWARDS, ONE, by='version')}",
                    "version {{version}}",
                    quiet="No client reports rewards.",
                ),
            ),
            width=8,
            low=None,
            decimals=3,
        ),
    ),
)
