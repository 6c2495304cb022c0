"""The loop itself: what asks for a retraining, what is decided, and what is waiting."""

from __future__ import annotations

from grafana_foundation_sdk.models import units

from perennial_dashboards import expressions as of
from perennial_dashboards.expressions import CHOSEN
from perennial_dashboards.panels import (
    ANY_IS_BAD,
    GREEN,
    GREY,
    ORANGE,
    RED,
    UP,
    Cells,
    Column,
    Dashboard,
    Lines,
    Mark,
    Number,
    Query,
    Row,
    Table,
    Variable,
)
from perennial_spec import names

AGE = ((None, GREEN), (60, ORANGE), (600, RED))
"""Of what waits, in seconds: deliveries are tried again all the time."""
NOTHING_ASKS = "No alert asks for a retraining."
ACTIONS = "perennial:retrain_action"


def _retrains(trigger: str) -> Query:
    """1 for the pipelines that the trigger retrains, 0 for the others."""
    every = (CHOSEN, f'trigger="{trigger}"')
    by = "max by (pipeline)"
    return Query(f"{by} ({of.series(ACTIONS, *every, of.RETRAIN)}) or 0 * {by} ({of.series(ACTIONS, *every)})")


NOW = Row(
    "Now",
    (
        Number(
            "Ledger",
            "Whether the ledger's database answers the controller: without it nothing is decided, and Alertmanager sends again.",
            units.NoUnit,
            (Query(f"min({names.LEDGER_UP})"),),
            states=UP,
            width=3,
            runbook=names.ALERT_LEDGER_DOWN,
        ),
        Number(
            "Airflow",
            "Whether Airflow answered the controller the last time it was asked.",
            units.NoUnit,
            (Query(f"min({names.AIRFLOW_UP})"),),
            states=UP,
            width=3,
            runbook=names.ALERT_DELIVERY_FAILING,
        ),
        Number(
            "Watchdog",
            "Since the alert that always fires last came through Alertmanager: when it stops, no alert can arrive.",
            units.Seconds,
            (Query(f"time() - max({names.WATCHDOG_RECEIVED})"),),
            steps=((None, GREEN), (300, RED)),
            width=3,
            runbook=names.ALERT_NOT_RECEIVED,
        ),
        Number(
            "Backlog",
            "Events that are not decided, and runs that Airflow does not have yet.",
            units.Short,
            (Query(f"max({names.BACKLOG})"),),
            steps=ANY_IS_BAD,
            width=3,
        ),
        Number(
            "Oldest undelivered",
            "How long the oldest of the backlog has waited.",
            units.Seconds,
            (Query(f"max({names.OLDEST_UNDELIVERED})"),),
            steps=AGE,
            width=3,
        ),
        Number(
            "Alerts that retrain",
            "Alerts that fire now and ask for a retraining.",
            units.Short,
            (Query(f"count({of.firing(CHOSEN, of.RETRAIN)})", zero=True, quiet=NOTHING_ASKS),),
            steps=((None, GREEN), (1, ORANGE)),
            width=3,
        ),
        Number(
            "Runs accepted",
            "Runs that the controller started within the time that is shown.",
            units.Short,
            (Query(f"sum(increase({of.series(names.DECISIONS, CHOSEN, of.ACCEPTED)}[$__range]))"),),
            decimals=0,
            width=3,
        ),
        Number(
            "Broken files",
            "Pipelines whose files cannot be read; their last good thresholds hold.",
            units.Short,
            (
                Query(
                    f"sum({of.most(names.PIPELINE_BROKEN, CHOSEN, by='pipeline')})", zero=True, quiet="All can be read."
                ),
            ),
            steps=ANY_IS_BAD,
            width=3,
        ),
    ),
)

DECIDED = Row(
    "Decisions",
    (
        Lines(
            "Decisions by outcome",
            "What became of alerts, news of data and people's wishes, per minute. `accepted` starts a run; what is merged, cooling down, "
            "over budget or waiting for data is decided again while its alert fires.",
            units.Short,
            (
                Query(
                    f"sum by (decision) (increase({of.series(names.DECISIONS, CHOSEN)}[$__interval]))", "{{decision}}"
                ),
            ),
            bars=True,
            stacked=True,
            interval="1m",
        ),
        Lines(
            "Decisions by pipeline",
            "The same by pipeline; without a name where an event named no pipeline of ours.",
            units.Short,
            (
                Query(
                    f"sum by (pipeline) (increase({of.series(names.DECISIONS, CHOSEN)}[$__interval]))", "{{pipeline}}"
                ),
            ),
            bars=True,
            stacked=True,
            interval="1m",
        ),
        Cells(
            "Alerts that ask for a retraining",
            "When each fired, and for how long.",
            units.NoUnit,
            (
                Query(
                    of.fired(CHOSEN, of.RETRAIN, by="alertname, pipeline"),
                    "{{pipeline}} {{alertname}}",
                    quiet=NOTHING_ASKS,
                ),
            ),
            states=((1, "firing", ORANGE),),
        ),
        Table(
            "What may start a retraining",
            "retraining.on of each pipeline: its alerts of these kinds start a run by themselves, the others only tell.",
            units.NoUnit,
            width=12,
            columns=(
                Column("Pipeline", label="pipeline"),
                *(
                    Column(
                        trigger.capitalize(), _retrains(trigger), states=((0, "tells", GREY), (1, "retrains", GREEN))
                    )
                    for trigger in ("drift", "quality", "freshness")
                ),
            ),
        ),
    ),
)

DELIVERED = Row(
    "Delivery to Airflow",
    (
        Lines(
            "Backlog",
            "Events that are not decided, and runs that Airflow does not have yet.",
            units.Short,
            (Query(f"max({names.BACKLOG})", "waiting"),),
            width=8,
        ),
        Lines(
            "Oldest undelivered",
            "How long the oldest of the backlog has waited.",
            units.Seconds,
            (Query(f"max({names.OLDEST_UNDELIVERED})", "oldest"),),
            width=8,
        ),
        Lines(
            "Attempts by result",
            "Attempts to start a run in Airflow, per minute. already_there: an earlier attempt had come through; away: Airflow did not "
            "answer, tried again; refused: it said no.",
            units.Short,
            (Query(f"sum by (result) (increase({of.series(names.DELIVERIES, CHOSEN)}[$__interval]))", "{{result}}"),),
            width=8,
            bars=True,
            stacked=True,
            interval="1m",
        ),
    ),
)

RUNS = Row(
    "Runs",
    (
        Table(
            "Runs of each pipeline",
            "The last that did its work (a challenger that was rejected is an answer), failures since, retrainings by alerts that led to "
            "nothing, what is left of the budget, and since when a run is active or retraining is paused.",
            units.NoUnit,
            columns=(
                Column("Pipeline", label="pipeline"),
                Column(
                    "Last good run",
                    Query(f"time() - {of.most(names.RUN_LAST_SUCCESS, CHOSEN, by='pipeline')}"),
                    unit=units.Seconds,
                ),
                Column(
                    "Failed since",
                    Query(of.most(names.RUN_FAILURES_IN_A_ROW, CHOSEN, by="pipeline")),
                    unit=units.Short,
                    steps=ANY_IS_BAD,
                ),
                Column(
                    "In vain",
                    Query(of.most(names.RETRAININGS_SINCE_PROMOTION, CHOSEN, by="pipeline")),
                    unit=units.Short,
                ),
                Column(
                    "Breaker open",
                    Query(of.most(names.BREAKER_OPEN, CHOSEN, by="pipeline")),
                    unit=units.Short,
                    steps=((None, GREEN), (1, RED)),
                ),
                Column(
                    "Breaker opens at",
                    Query(of.most(names.RETRAININGS_LIMIT, CHOSEN, by="pipeline")),
                    unit=units.Short,
                ),
                Column(
                    "Budget left",
                    Query(of.most(names.BUDGET_LEFT, CHOSEN, by="pipeline")),
                    unit=units.Short,
                    steps=((None, RED), (1, GREEN)),
                ),
                Column(
                    "Time left",
                    Query(
                        of.most(names.BUDGET_SECONDS_LEFT, CHOSEN, by="pipeline"),
                        quiet="No spec sets retraining.budget.compute.",
                    ),
                    unit=units.Seconds,
                    steps=((None, RED), (1, GREEN)),
                ),
                Column(
                    "Active for",
                    Query(
                        f"time() - {of.most(names.RUN_ACTIVE_SINCE, CHOSEN, by='pipeline')}", quiet="No run is active."
                    ),
                    unit=units.Seconds,
                ),
                Column("Limit", Query(of.most(names.RUN_LIMIT, CHOSEN, by="pipeline")), unit=units.Seconds),
                Column(
                    "Paused for",
                    Query(f"time() - {of.most(names.PAUSED_SINCE, CHOSEN, by='pipeline')}", quiet="Nothing is paused."),
                    unit=units.Seconds,
                ),
            ),
        ),
        Lines(
            "Runs by what came of them",
            "Training runs that have ended, ever, of all pipelines that are chosen.",
            units.Short,
            (Query(f"sum by (outcome) ({of.most(names.RUNS, CHOSEN, by='pipeline, outcome')})", "{{outcome}}"),),
            runbook=names.ALERT_RUN_FAILING,
        ),
        Lines(
            "Steps of rollouts, by verdict",
            "What judged steps came to (analyse, compare, experiment), counted when their run has ended.",
            units.Short,
            (
                Query(
                    f"sum by (verdict) ({of.most(names.ROLLOUT_VERDICTS, CHOSEN, by='pipeline, verdict')})",
                    "{{verdict}}",
                ),
            ),
        ),
        Lines(
            "Alerts that are held back",
            "By why: merged into a run, cooling down, over budget, waiting for data, paused, or held by the breaker.",
            units.Short,
            (
                Query(
                    f"sum by (decision) ({of.most(names.HELD_EVENTS, CHOSEN, by='pipeline, decision')})", "{{decision}}"
                ),
            ),
            stacked=True,
            runbook=names.ALERT_BUDGET_SPENT,
        ),
    ),
)

FED = Row(
    "What the loop lives on",
    (
        Lines(
            "Age of the newest data",
            "By data.timestamp of each pipeline, as a share of what data.freshness allows; at 100% PerennialDataStale fires.",
            units.PercentUnit,
            (
                Query(
                    f"({of.data_age(CHOSEN)}) / on (pipeline) {of.most(names.DATA_FRESHNESS_LIMIT, by='pipeline')}",
                    "{{pipeline}}",
                    quiet="No spec sets data.freshness.",
                ),
            ),
            steps=((None, GREEN), (1.0, RED)),
            runbook=names.ALERT_DATA_STALE,
        ),
        Lines(
            "Labels that arrive",
            "Labels that clients brought to the model server, by pipeline.",
            units.RowsPerSecond,
            (Query(of.rate(names.FEEDBACK, CHOSEN, by="pipeline"), "{{pipeline}}"),),
        ),
    ),
)

MARKS = (
    Mark(
        "Runs",
        Query(of.accepted(CHOSEN), quiet="None was accepted."),
        "{{pipeline}}: run accepted",
        "The controller started a run.",
        "blue",
    ),
    Mark(
        "New champions",
        Query(of.succeeded(CHOSEN), quiet="None took over."),
        "{{pipeline}}: new champion",
        "Version {{version}}.",
        GREEN,
    ),
)

BOARD = Dashboard(
    "perennial-loop",
    "Perennial / The loop",
    "What asks for a retraining, what the controller decides, what is waiting.",
    (NOW, DECIDED, RUNS, DELIVERED, FED),
    variables=(Variable("pipeline", "Pipeline", f"label_values({names.DRIFT_THRESHOLD}, pipeline)", many=True),),
    marks=MARKS,
    since="now-24h",
)
