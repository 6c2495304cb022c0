"""The parts of the platform: do they run, do they keep up, do they follow."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from perennial_dashboards import expressions as of
from perennial_dashboards.panels import ANY_IS_BAD, GREEN, RED, UP, Cells, Dashboard, Lines, Number, Query, Row
from perennial_spec import names

PARTS = 'job=~"perennial-.+"'
"""Jobs of Prometheus that scrape the platform's parts."""
PER = of.PER

NOW = Row(
    "Now",
    (
        Number(
            "Parts up",
            "Parts that Prometheus can scrape.",
            units.Short,
            (Query(f"sum(up{{{PARTS}}})"),),
            runbook=names.ALERT_MONITORING_DOWN,
        ),
        Number(
            "Parts down",
            "Parts that Prometheus cannot scrape.",
            units.Short,
            (Query(f"count(up{{{PARTS}}} == 0)", zero=True, quiet="All are up."),),
            steps=ANY_IS_BAD,
            runbook=names.ALERT_MONITORING_DOWN,
        ),
        Number(
            "Registry",
            "Whether the registry answered every model server the last time.",
            units.NoUnit,
            (Query(f"min({names.REGISTRY_UP})"),),
            states=UP,
        ),
        Number(
            "Versions refused",
            "Versions that a model server was told to load and could not; its log says why.",
            units.Short,
            (Query(f"count({names.MODEL_LOADED} == 0)", zero=True, quiet="All are loaded."),),
            steps=ANY_IS_BAD,
        ),
        Number(
            "Routes that differ",
            "Pipelines of which two model servers follow different routes. A second is the polling; longer is a server that is cut off.",
            units.Short,
            (
                Query(
                    f"sum((max by (pipeline) ({names.ROUTE_REVISION}) - min by (pipeline) ({names.ROUTE_REVISION})) > bool 0)",
                ),
            ),
            steps=ANY_IS_BAD,
        ),
        Number(
            "Rows lost to the log",
            "Prediction rows that the log had no room for, within the time that is shown: quality cannot be measured on them.",
            units.Short,
            (Query(f"sum(increase({names.PREDICTION_LOG_DROPPED}[$__range]))"),),
            steps=ANY_IS_BAD,
            decimals=0,
        ),
    ),
)

LOAD = Row(
    "Load of the model servers",
    (
        Lines(
            "Connections, as a share of their limit",
            "Open connections of each model server.",
            units.PercentUnit,
            (Query(f"{names.IN_FLIGHT} / {names.REQUESTS_LIMIT}", "{{instance}}"),),
            width=8,
            steps=((None, GREEN), (0.8, RED)),
            runbook=names.ALERT_SATURATED,
        ),
        Lines(
            "Rows in progress, as a share of their limit",
            "What shedding is governed by: at 100% requests are answered with 503.",
            units.PercentUnit,
            (Query(f"{names.ROWS_IN_FLIGHT} / {names.ROWS_LIMIT}", "{{instance}}"),),
            width=8,
            steps=((None, GREEN), (0.8, RED)),
            runbook=names.ALERT_SATURATED,
        ),
        Lines(
            "Explained rows",
            "Rows of the random sample that were explained, and those that could not be, per minute.",
            units.Short,
            (
                Query(
                    f"sum(increase({names.ATTRIBUTION_ROWS}[$__interval]))",
                    "explained",
                    quiet="No model has attributions.",
                ),
                Query(
                    f"sum(increase({names.ATTRIBUTION_DROPPED}[$__interval]))",
                    "dropped",
                    quiet="No model has attributions.",
                ),
            ),
            width=8,
            bars=True,
            interval="1m",
        ),
        Cells(
            "Health queries",
            "Whether each version answers rows of its own training as it did then.",
            units.NoUnit,
            (
                Query(
                    f"min by (pipeline, version) (min_over_time({names.HEALTH_QUERY_UP}[$__interval]))",
                    "{{pipeline}} {{version}}",
                ),
            ),
            states=((0, "answers otherwise", RED), (1, "well", GREEN)),
            runbook=names.ALERT_HEALTH_QUERY,
        ),
        Cells(
            "Logs that quality is measured on",
            "Whether the exporter could read each pipeline's logs the last time.",
            units.NoUnit,
            (Query(f"min by (pipeline) (min_over_time({names.QUALITY_LOGS_UP}[$__interval]))", "{{pipeline}}"),),
            states=UP,
            runbook=names.ALERT_QUALITY_UNREAD,
        ),
    ),
)

RUNNING = Row(
    "Parts",
    (
        Cells(
            "Up",
            "Whether Prometheus could scrape each part.",
            units.NoUnit,
            (Query(f"min_over_time(up{{{PARTS}}}[$__interval])", "{{job}} {{instance}}"),),
            states=UP,
            runbook=names.ALERT_SERVER_DOWN,
        ),
        Lines(
            "Memory",
            "Resident memory of each part; of a model server with all its workers.",
            units.BytesIEC,
            (Query(f"process_resident_memory_bytes{{{PARTS}}}", "{{job}} {{instance}}"),),
        ),
        Lines(
            "Processors",
            "Processors that each part keeps busy; 1 is one core.",
            units.Short,
            (Query(f"rate(process_cpu_seconds_total{{{PARTS}}}{PER})", "{{job}} {{instance}}"),),
            width=8,
            decimals=2,
        ),
        Lines(
            "Open files",
            "Open file descriptors, as a share of those that are allowed.",
            units.PercentUnit,
            (Query(f"process_open_fds{{{PARTS}}} / process_max_fds{{{PARTS}}}", "{{job}} {{instance}}"),),
            width=8,
            steps=((None, GREEN), (0.8, RED)),
        ),
        Lines(
            "Restarts",
            "Starts of each part's process, per minute: the supervisor restarts what ends.",
            units.Short,
            (Query(f"changes(process_start_time_seconds{{{PARTS}}}[$__interval])", "{{job}} {{instance}}"),),
            width=8,
            bars=True,
            interval="1m",
        ),
    ),
)

SERVING = Row(
    "Model servers",
    (
        Lines(
            "Workers",
            "Processes that answer on each server's port.",
            units.Short,
            (Query(names.WORKERS, "{{instance}}"),),
            width=8,
        ),
        Lines(
            "Requests refused over capacity",
            "Requests that a server shed because too many were under way, by pipeline.",
            units.RequestsPerSecond,
            (
                Query(
                    of.rate(names.REQUESTS_SHED, by="pipeline"),
                    "{{pipeline}}",
                    quiet="None was ever refused.",
                ),
            ),
            width=8,
        ),
        Lines(
            "Shadow rows dropped",
            "Rows that a shadow version did not see because it does not keep up.",
            units.RowsPerSecond,
            (
                Query(
                    of.rate(names.SHADOW_DROPPED, by="pipeline, version"),
                    "{{pipeline}} version {{version}}",
                    quiet="No shadow version fell behind.",
                ),
            ),
            width=8,
        ),
        Lines(
            "Looks at the registry",
            "How often the servers ask the registry for the route, by what came of it.",
            units.OpsPerSecond,
            (Query(of.rate(names.REGISTRY_POLLS, by="outcome"), "{{outcome}}"),),
            width=8,
            stacked=True,
        ),
        Lines(
            "Since the registry answered",
            "Time since each server's last answer from the registry. A server goes on with the route that it has.",
            units.Seconds,
            (Query(f"time() - ({names.REGISTRY_ANSWERED} > 0)", "{{instance}}"),),
            width=8,
        ),
        Lines(
            "Revision of the route",
            "The revision that each server follows: they must agree within seconds.",
            units.NoUnit,
            (Query(names.ROUTE_REVISION, "{{pipeline}} {{instance}}"),),
            width=8,
            low=None,
        ),
        Lines(
            "Prediction log: rows written",
            "Prediction rows that reached the log's tables, by pipeline.",
            units.RowsPerSecond,
            (Query(of.rate(names.PREDICTION_LOG_WRITTEN, by="pipeline"), "{{pipeline}}"),),
        ),
        Lines(
            "Prediction log: rows left out",
            "Rows for which the log had no room, and rows that monitoring.log.share leaves out.",
            units.RowsPerSecond,
            (
                Query(of.rate(names.PREDICTION_LOG_DROPPED, by="pipeline"), "{{pipeline}} no room"),
                Query(of.rate(names.PREDICTION_LOG_SAMPLED_OUT, by="pipeline"), "{{pipeline}} not sampled"),
            ),
        ),
    ),
)

WATCHING = Row(
    "Prometheus and Alertmanager",
    (
        Lines(
            "Evaluation of the rules",
            "How long each group of Perennial's rules took, as a share of its interval: at 100% evaluations are missed.",
            units.PercentUnit,
            (
                Query(
                    'max by (rule_group) (prometheus_rule_group_last_duration_seconds{rule_group=~".*perennial-.*"}) '
                    "/ max by (rule_group) (prometheus_rule_group_interval_seconds)",
                    "{{rule_group}}",
                ),
            ),
            steps=((None, GREEN), (0.33, "orange"), (1.0, RED)),
        ),
        Lines(
            "Rules that failed, evaluations that were missed",
            "Both must be 0: drift and quality are not judged meanwhile.",
            units.Short,
            (
                Query(f"sum(rate(prometheus_rule_evaluation_failures_total{PER}))", "failed"),
                Query(f"sum(rate(prometheus_rule_group_iterations_missed_total{PER}))", "missed"),
            ),
            decimals=3,
        ),
        Lines(
            "Scrapes",
            "How long each scrape of a part took.",
            units.Seconds,
            (Query(f"scrape_duration_seconds{{{PARTS}}}", "{{job}} {{instance}}"),),
            width=8,
        ),
        Lines(
            "Samples by part",
            "Samples per scrape: what each part adds to Prometheus' work.",
            units.Short,
            (Query(f"scrape_samples_post_metric_relabeling{{{PARTS}}}", "{{job}} {{instance}}"),),
            width=8,
        ),
        Lines(
            "Series in memory",
            "Time series that Prometheus holds in memory.",
            units.Short,
            (Query("prometheus_tsdb_head_series", "{{instance}}"),),
            width=8,
        ),
        Lines(
            "Notifications to the controller and others",
            "What Alertmanager sent, by receiver's kind, and what failed.",
            units.EventsPerSecond,
            (
                Query(f"sum by (integration) (rate(alertmanager_notifications_total{PER})) > 0", "{{integration}}"),
                Query(
                    f"sum by (integration) (rate(alertmanager_notifications_failed_total{PER})) > 0",
                    "{{integration}} failed",
                    quiet="None failed.",
                ),
            ),
            width=12,
        ),
        Lines(
            "Notifications from Prometheus",
            "Alerts that Prometheus sent to Alertmanager, and those that it had to drop.",
            units.EventsPerSecond,
            (
                Query(f"sum(rate(prometheus_notifications_sent_total{PER}))", "sent"),
                Query(f"sum(rate(prometheus_notifications_dropped_total{PER}))", "dropped"),
            ),
            width=12,
        ),
    ),
)

BOARD = Dashboard(
    "perennial-platform",
    "Perennial / The platform",
    "The parts: up, memory, saturation, registry, prediction log, Prometheus itself.",
    (NOW, RUNNING, LOAD, SERVING, WATCHING),
)
