"""The policy as a table, and what must hold for every history."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial_controller.cases import HELD, DecisionKind, Event, Facts, History, Pause, Run
from perennial_controller.policy import TRIGGER_OF, compute_spent, decide, needs_facts, priority_of
from perennial_spec import names
from perennial_spec.pipeline import PipelineSpec

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
NEW_DATA = Facts(validated_version=5, champion_version="2", champion_data_version=3)
WATCHED = Facts(5, "2", 3, NOW - HOUR, None, "1")
DRIFT = Event("alert", "flights", names.ALERT_FEATURE_DRIFT, "retrain", last_seen=NOW)
PERSON = Event("person", "flights")
DATA = Event("data", "flights")
PAUSED = Pause(NOW - HOUR, None, "ann", "the source is broken")
PAUSED_TILL_SOON = Pause(NOW - HOUR, NOW + HOUR, "bob", "an upgrade", of_all=True)
PAUSED_TILL_NOW = Pause(NOW - HOUR, NOW, "bob", "an upgrade")


def spec(**retraining: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "apiVersion": "perennial/v1",
            "name": "flights",
            "owner": {"team": "ops", "contact": "ops@example.com"},
            "data": {"sources": {"f": "f.parquet"}, "timestamp": "at", "entity": "id", "label": {"column": "late"}},
            "model": {"kind": "xgboost.classifier"},
            "evaluation": {"metric": "roc_auc", "gates": [{"metric": "roc_auc", "min": 0.6}]},
            "retraining": {"on": ["drift"], "cooldown": "6h", "budget": {"runs": 2, "per": "1d"}, **retraining},
        }
    )


def ran(hours_ago: float, active: bool = False, dag: str = "flights", delivered: bool = True) -> Run:
    return Run(dag, f"run-{hours_ago:g}", NOW - hours_ago * HOUR, active, delivered)


def alert(name: str = names.ALERT_FEATURE_DRIFT, **changes: Any) -> Event:
    return Event(
        **{"kind": "alert", "pipeline": "flights", "alert": name, "action": "retrain", "last_seen": NOW, **changes}
    )


REGRESSION = alert(names.ALERT_REGRESSION, action="rollback", version="2")
TABLE: list[tuple[str, Event, History, Facts, DecisionKind, str]] = [
    (
        "drift and new data",
        DRIFT,
        History(),
        NEW_DATA,
        DecisionKind.ACCEPTED,
        "version 5 passed validation, newer than 3",
    ),
    (
        "the very first model",
        DRIFT,
        History(),
        Facts(validated_version=0),
        DecisionKind.ACCEPTED,
        "version 0 passed validation, and there is no champion yet",
    ),
    (
        "prediction drift is drift",
        alert(names.ALERT_PREDICTION_DRIFT),
        History(),
        NEW_DATA,
        DecisionKind.ACCEPTED,
        "drift: ",
    ),
    (
        "a trigger that the spec does not name",
        alert(names.ALERT_QUALITY),
        History(),
        NEW_DATA,
        DecisionKind.NOT_ALLOWED,
        "quality does not start a retraining here: retraining.on is drift",
    ),
    (
        "an alert that is no trigger",
        alert("DiskFull"),
        History(),
        NEW_DATA,
        DecisionKind.NOT_ALLOWED,
        "'DiskFull' is not an alert that retrains; those are PerennialFeatureDrift, PerennialPredictionDrift",
    ),
    (
        "no retraining asked for",
        alert(action="page"),
        History(),
        NEW_DATA,
        DecisionKind.IGNORED,
        "action is 'page'; only 'retrain' starts a run, 'rollback' takes traffic back",
    ),
    (
        "a regression of a new champion",
        REGRESSION,
        History(),
        WATCHED,
        DecisionKind.ROLLING_BACK,
        "version 2 was promoted 2026-06-01 11:00:00 UTC, is watched for 3d (deployment.watch), and is worse: back to version 1",
    ),
    (
        "neither cooldown nor budget nor an open breaker holds a rollback",
        REGRESSION,
        History((ran(0.5), ran(1)), in_vain=5),
        WATCHED,
        DecisionKind.ROLLING_BACK,
        "back to version 1",
    ),
    (
        "a run that is active does not hold it",
        REGRESSION,
        History((ran(0.5, active=True),)),
        WATCHED,
        DecisionKind.ROLLING_BACK,
        "back",
    ),
    (
        "a pause does",
        REGRESSION,
        History(pauses=(PAUSED,)),
        WATCHED,
        DecisionKind.PAUSED,
        "ann has paused this pipeline",
    ),
    (
        "a regression that is over",
        alert(names.ALERT_REGRESSION, action="rollback", version="2", resolved=True),
        History(),
        WATCHED,
        DecisionKind.RESOLVED,
        "ended",
    ),
    (
        "of a version that serves no longer",
        alert(names.ALERT_REGRESSION, action="rollback", version="7"),
        History(),
        WATCHED,
        DecisionKind.NOT_ALLOWED,
        "it is about version 7, and version 2 is champion",
    ),
    (
        "of the first champion",
        REGRESSION,
        History(),
        replace(WATCHED, previous_version=None),
        DecisionKind.NOT_ALLOWED,
        "version 2 is the first champion: there is none to go back to",
    ),
    (
        "after the watch",
        REGRESSION,
        History(),
        replace(WATCHED, champion_promoted_at=NOW - 73 * HOUR),
        DecisionKind.NOT_ALLOWED,
        "version 2 was promoted 2026-05-29 11:00:00 UTC, longer ago than deployment.watch",
    ),
    (
        "of a version that was itself put back",
        REGRESSION,
        History(),
        replace(WATCHED, champion_restored_at=NOW),
        DecisionKind.NOT_ALLOWED,
        "is taken back one step only",
    ),
    (
        "of a champion that a person's hand made so in MLflow",
        REGRESSION,
        History(),
        replace(WATCHED, champion_promoted_at=None),
        DecisionKind.NOT_ALLOWED,
        "it is not known when version 2 was promoted",
    ),
    ("no champion at all", REGRESSION, History(), Facts(), DecisionKind.NOT_ALLOWED, "there is no champion"),
    (
        "one's own rule that rolls back, when it may not, retrains",
        alert(action="rollback", version="2"),
        History(),
        replace(WATCHED, previous_version=None),
        DecisionKind.ACCEPTED,
        "drift: data version 5",
    ),
    ("no action at all", alert(action=None), History(), NEW_DATA, DecisionKind.IGNORED, "action is 'not set'"),
    (
        "the alert has ended",
        alert(resolved=True),
        History(),
        NEW_DATA,
        DecisionKind.RESOLVED,
        "ended before it started a run",
    ),
    (
        "no copy for a day",
        alert(last_seen=NOW - 25 * HOUR),
        History(),
        NEW_DATA,
        DecisionKind.RESOLVED,
        "no copy of the alert came since 2026-05-31 11:00:00 UTC; after 1d it is taken as ended",
    ),
    (
        "a run is active",
        DRIFT,
        History((ran(30, active=True),)),
        NEW_DATA,
        DecisionKind.MERGED,
        "run run-30, accepted 2026-05-31 06:00:00 UTC, has not finished",
    ),
    (
        "a data run is active",
        DRIFT,
        History((ran(1, True, "flights.data"),)),
        NEW_DATA,
        DecisionKind.ACCEPTED,
        "drift: ",
    ),
    (
        "a person has paused the pipeline",
        DRIFT,
        History(pauses=(PAUSED,)),
        NEW_DATA,
        DecisionKind.PAUSED,
        "ann has paused this pipeline on 2026-06-01 11:00:00 UTC, until somebody resumes: the source is broken",
    ),
    (
        "a person has paused all pipelines for some time",
        DRIFT,
        History(pauses=(PAUSED_TILL_NOW, PAUSED_TILL_SOON)),
        NEW_DATA,
        DecisionKind.PAUSED,
        "bob has paused all pipelines on 2026-06-01 11:00:00 UTC, until 2026-06-01 13:00:00 UTC: an upgrade",
    ),
    (
        "too many retrainings in vain",
        DRIFT,
        History(in_vain=5),
        NEW_DATA,
        DecisionKind.BREAKER_OPEN,
        "5 retrainings by alerts or more have led to no new champion (monitoring.runs.without_promotion): "
        "no alert starts another until somebody has looked, and says: perennial resume flights",
    ),
    ("one fewer", DRIFT, History(in_vain=4), NEW_DATA, DecisionKind.ACCEPTED, "drift: "),
    ("a person is not held by the breaker", PERSON, History(in_vain=9), Facts(), DecisionKind.ACCEPTED, "a person"),
    ("a pause that is over", DRIFT, History(pauses=(PAUSED_TILL_NOW,)), NEW_DATA, DecisionKind.ACCEPTED, "drift: "),
    ("a person is not held by a pause", PERSON, History(pauses=(PAUSED,)), Facts(), DecisionKind.ACCEPTED, "a person"),
    ("data lands during a pause", DATA, History(pauses=(PAUSED,)), Facts(), DecisionKind.ACCEPTED, "new data"),
    (
        "an alert that ended during a pause",
        alert(resolved=True),
        History(pauses=(PAUSED,)),
        NEW_DATA,
        DecisionKind.RESOLVED,
        "ended before it started a run",
    ),
    ("a rollback", Event("rollback", "flights"), History(), Facts(), DecisionKind.NOTED, "a person does it"),
    ("a pause", Event("pause", "*"), History(), Facts(), DecisionKind.NOTED, "in force from now on"),
    (
        "within the cooldown",
        DRIFT,
        History((ran(2),)),
        NEW_DATA,
        DecisionKind.COOLING_DOWN,
        "retraining.cooldown is 6h, so no alert starts one before 2026-06-01 16:00:00 UTC",
    ),
    ("the cooldown's last moment has passed", DRIFT, History((ran(6),)), NEW_DATA, DecisionKind.ACCEPTED, "drift: "),
    (
        "the budget is spent",
        DRIFT,
        History((ran(7), ran(20))),
        NEW_DATA,
        DecisionKind.OVER_BUDGET,
        "2 runs since 2026-05-31 16:00:00 UTC; retraining.budget is 2 per 1d, so no alert starts one before 2026-06-01 16:00:00 UTC",
    ),
    ("an old run is out of the budget", DRIFT, History((ran(7), ran(24))), NEW_DATA, DecisionKind.ACCEPTED, "drift: "),
    (
        "nothing validated",
        DRIFT,
        History(),
        Facts(),
        DecisionKind.WAITING_FOR_DATA,
        "no version of the data has passed",
    ),
    (
        "the champion knows the newest data",
        DRIFT,
        History(),
        Facts(3, "2", 3),
        DecisionKind.WAITING_FOR_DATA,
        "data version 3 is the newest that passed validation, and the champion (version 2) was trained on 3",
    ),
    (
        "a challenger that lost knows the newest data",
        DRIFT,
        History((ran(7),), tried_data_version=5),
        NEW_DATA,
        DecisionKind.WAITING_FOR_DATA,
        "data version 5 is the newest that passed validation, and a model was already trained on 5",
    ),
    ("a foreign champion", DRIFT, History(), Facts(3, "2", None), DecisionKind.ACCEPTED, "version 3 passed validation"),
    (
        "a person is not held by the cooldown",
        PERSON,
        History((ran(1), ran(2), ran(3))),
        Facts(),
        DecisionKind.ACCEPTED,
        "a person",
    ),
    (
        "a person is held by a run",
        PERSON,
        History((ran(1, True),)),
        Facts(),
        DecisionKind.MERGED,
        "run run-1, accepted",
    ),
    ("new data", DATA, History((ran(1, True),)), Facts(), DecisionKind.ACCEPTED, "new data was announced"),
    (
        "data while a data run works",
        DATA,
        History((ran(1, True, "flights.data"),)),
        Facts(),
        DecisionKind.ACCEPTED,
        "new data",
    ),
    (
        "data while a data run waits to start",
        DATA,
        History((ran(1, True, "flights.data", delivered=False),)),
        Facts(),
        DecisionKind.MERGED,
        "run run-1 has not started yet and will find this data",
    ),
]


@pytest.mark.parametrize(
    ("event", "history", "facts", "kind", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_decision(event: Event, history: History, facts: Facts, kind: DecisionKind, words: str) -> None:
    decision = decide(event, history, spec(), NOW, facts)
    assert decision.kind == kind
    assert words in decision.reason


def test_stale_data_retrains_without_new_data_for_the_run_itself_looks_for_some() -> None:
    stale = alert(names.ALERT_DATA_STALE)
    assert not needs_facts(stale)
    assert decide(stale, History(), spec(on=["freshness"]), NOW, Facts()).kind == DecisionKind.ACCEPTED


TICK = Event("schedule", "flights")
DAILY = {"schedule": "@daily"}
NIGHT: dict[str, Any] = {
    "schedule": "@daily",
    "quiet_hours": {"start": "10:00", "end": "14:00", "let_through": ["quality"]},
    "on": ["drift", "quality"],
}


@pytest.mark.parametrize(
    ("event", "history", "kind", "words"),
    [
        (TICK, History(), DecisionKind.ACCEPTED, "it is due by retraining.schedule, and no run is active"),
        (TICK, History((ran(0.5), ran(1)), in_vain=9), DecisionKind.ACCEPTED, "it is due"),
        (TICK, History((ran(1, True),)), DecisionKind.MERGED, "run run-1, accepted 2026-06-01 11:00:00 UTC"),
        (TICK, History(pauses=(PAUSED,)), DecisionKind.PAUSED, "ann has paused this pipeline"),
        (
            replace(TICK, superseded_by=9),
            History(pauses=(PAUSED,)),
            DecisionKind.SUPERSEDED,
            "decision 9 is about the same",
        ),
    ],
    ids=["due", "neither cooldown nor budget nor breaker", "merged", "paused", "an older tick"],
)
def test_a_tick_of_the_schedule(event: Event, history: History, kind: DecisionKind, words: str) -> None:
    decision = decide(event, history, spec(**DAILY), NOW, Facts())
    assert decision.kind == kind
    assert words in decision.reason


def test_a_tick_that_outlives_its_schedule_starts_nothing() -> None:
    decision = decide(TICK, History(), spec(), NOW, Facts())
    assert (decision.kind, decision.reason) == (
        DecisionKind.NOT_ALLOWED,
        "the spec has no retraining.schedule any more",
    )


@pytest.mark.parametrize("hours_ahead", [30 * 24, 49])
def test_a_clock_that_was_put_right_holds_no_alert_until_its_time_comes(hours_ahead: float) -> None:
    ahead = History((ran(-hours_ahead), ran(-hours_ahead), ran(-hours_ahead)))
    assert decide(DRIFT, ahead, spec(), NOW, NEW_DATA).kind == DecisionKind.ACCEPTED


def test_an_alert_that_a_newer_one_supersedes_starts_nothing_unless_it_is_left_alone() -> None:
    assert decide(replace(DRIFT, superseded_by=7), History(), spec(), NOW, NEW_DATA).kind == DecisionKind.SUPERSEDED
    assert decide(DRIFT, History(), spec(), NOW, NEW_DATA).kind == DecisionKind.ACCEPTED


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (DRIFT, DecisionKind.QUIET_HOURS),
        (TICK, DecisionKind.QUIET_HOURS),
        (alert(names.ALERT_QUALITY), DecisionKind.ACCEPTED),
        (PERSON, DecisionKind.ACCEPTED),
        (DATA, DecisionKind.ACCEPTED),
        (REGRESSION, DecisionKind.ROLLING_BACK),
    ],
    ids=["drift", "schedule", "let through", "person", "data", "rollback"],
)
def test_quiet_hours_hold_alerts_and_the_schedule_alone(event: Event, kind: DecisionKind) -> None:
    decision = decide(event, History(), spec(**NIGHT), NOW, WATCHED)
    assert decision.kind == kind
    if kind == DecisionKind.QUIET_HOURS:
        assert decision.reason == "retraining.quiet_hours last until 2026-06-01 14:00:00 UTC"
        assert decide(event, History(), spec(**NIGHT), NOW + 2 * HOUR, WATCHED).kind == DecisionKind.ACCEPTED


def took(hours_ago: float, hours: float | None) -> Run:
    """A run that began when it was accepted; one that is active when it did not end."""
    accepted = NOW - hours_ago * HOUR
    ended = None if hours is None else accepted + hours * HOUR
    return Run("flights", f"run-{hours_ago:g}", accepted, hours is None, True, accepted, ended)


def test_the_time_that_runs_took_is_a_budget_too() -> None:
    policy = spec(cooldown="0s", budget={"runs": 9, "per": "1d", "compute": "5h"})
    assert decide(DRIFT, History((took(2, 1), took(10, 3))), policy, NOW, NEW_DATA).kind == DecisionKind.ACCEPTED
    decision = decide(DRIFT, History((took(2, 2), took(10, 3), took(25, 9))), policy, NOW, NEW_DATA)
    assert decision.kind == DecisionKind.OVER_BUDGET
    assert decision.reason == (
        "runs since 2026-06-01 02:00:00 UTC took 300 min; retraining.budget is 5h of compute per 1d, "
        "so no alert starts one before 2026-06-02 02:00:00 UTC"
    )
    later = NOW + 14 * HOUR
    still = replace(DRIFT, last_seen=later)
    assert decide(still, History((took(2, 2), took(10, 3))), policy, later, NEW_DATA).kind == DecisionKind.ACCEPTED


@pytest.mark.parametrize(
    ("labelled", "tried", "kind"),
    [
        ({5: 2000, 3: 1000}, None, DecisionKind.ACCEPTED),
        ({5: 1999, 3: 1000}, None, DecisionKind.WAITING_FOR_DATA),
        ({5: 2500, 4: 1800, 3: 1000}, 4, DecisionKind.WAITING_FOR_DATA),
        ({5: 2500}, None, DecisionKind.ACCEPTED),
        ({}, None, DecisionKind.ACCEPTED),
    ],
    ids=["enough", "too few", "too few since it was tried", "not counted then", "not counted"],
)
def test_a_least_number_of_new_labels(labelled: dict[int, int], tried: int | None, kind: DecisionKind) -> None:
    facts = replace(NEW_DATA, labelled=labelled)
    decision = decide(DRIFT, History(tried_data_version=tried), spec(min_new_labels=1000), NOW, facts)
    assert decision.kind == kind
    if kind == DecisionKind.WAITING_FOR_DATA:
        assert "rows with a label have landed since version" in decision.reason
        assert "retraining.min_new_labels is 1,000" in decision.reason


def test_the_first_model_waits_for_labels_too() -> None:
    first = Facts(validated_version=0, labelled={0: 10})
    decision = decide(DRIFT, History(), spec(min_new_labels=1000), NOW, first)
    assert decision.reason == "10 rows with a label have landed so far; retraining.min_new_labels is 1,000"


def test_quality_goes_before_freshness_and_freshness_before_drift() -> None:
    asked = [DRIFT, alert(names.ALERT_DATA_STALE), alert(names.ALERT_QUALITY), PERSON, REGRESSION]
    assert sorted(asked, key=priority_of) == [REGRESSION, PERSON, asked[2], asked[1], DRIFT]


@pytest.mark.parametrize("event", [DRIFT, PERSON, DATA])
def test_no_event_starts_a_run_of_a_pipeline_that_does_not_exist(event: Event) -> None:
    decision = decide(event, History(), None, NOW, NEW_DATA)
    assert (decision.kind, decision.reason) == (DecisionKind.NOT_ALLOWED, "there is no pipeline named 'flights'")


def test_a_merged_event_names_the_run() -> None:
    assert decide(PERSON, History((ran(1, True),)), spec(), NOW, Facts()).run_id == "run-1"


runs = st.builds(
    ran,
    st.floats(0, 100),
    st.booleans(),
    st.sampled_from(["flights", "flights.data"]),
    st.booleans(),
)
pauses = st.builds(
    lambda until, of_all: Pause(NOW - HOUR, None if until is None else NOW + until * HOUR, "ann", "because", of_all),
    st.none() | st.integers(-1, 24),
    st.booleans(),
)
histories = st.builds(
    History,
    st.lists(runs, max_size=8).map(tuple),
    st.none() | st.integers(0, 9),
    st.lists(pauses, max_size=2).map(tuple),
    st.integers(0, 6),
)
facts_ = st.builds(Facts, st.none() | st.integers(0, 9), st.just("1"), st.none() | st.integers(0, 9))
alerts = st.builds(
    alert,
    st.sampled_from([*TRIGGER_OF, "Other"]),
    action=st.sampled_from(["retrain", "none", None]),
    resolved=st.booleans(),
    last_seen=st.floats(0, 48).map(lambda hours: NOW - hours * HOUR),
)
specs = st.builds(
    lambda on, cooldown, runs, per: spec(on=on, cooldown=f"{cooldown}h", budget={"runs": runs, "per": f"{per}h"}),
    st.lists(st.sampled_from(["drift", "quality", "freshness"]), unique=True),
    st.integers(0, 48),
    st.integers(1, 5),
    st.integers(1, 48),
)


@given(event=alerts, history=histories, spec=specs, facts=facts_)
def test_an_alert_never_starts_a_run_against_the_policy(
    event: Event, history: History, spec: PipelineSpec, facts: Facts
) -> None:
    decision = decide(event, history, spec, NOW, facts)
    trainings = [run for run in history.runs if run.dag_id == "flights"]
    if decision.kind == DecisionKind.ACCEPTED:
        assert event.action == "retrain"
        assert not event.resolved
        assert TRIGGER_OF[event.alert or ""] in spec.retraining.on
        assert not any(pause.lasts(NOW) for pause in history.pauses)
        assert history.in_vain < spec.monitoring.runs.without_promotion
        assert not any(run.active for run in trainings)
        assert all(run.accepted_at + spec.retraining.cooldown <= NOW for run in trainings)
        assert (
            sum(run.accepted_at > NOW - spec.retraining.budget.per for run in trainings) < spec.retraining.budget.runs
        )
    assert decision.reason
    assert decision.kind not in (DecisionKind.RECEIVED, DecisionKind.DUPLICATE)


@given(event=alerts, history=histories, spec=specs, facts=facts_)
def test_an_alert_that_is_held_back_starts_a_run_once_nothing_holds_it(
    event: Event, history: History, spec: PipelineSpec, facts: Facts
) -> None:
    decision = decide(event, history, spec, NOW, facts)
    if decision.kind in HELD:
        later = NOW + timedelta(days=30)
        over = History(
            tuple(Run(r.dag_id, r.run_id, r.accepted_at, False) for r in history.runs), history.tried_data_version
        )
        still = Event(event.kind, event.pipeline, event.alert, event.action, last_seen=later)
        assert decide(still, over, spec, later, Facts(99, "1", 3)).kind == DecisionKind.ACCEPTED


@given(history=histories, spec=specs, moment=st.floats(0, 0.5))
def test_the_reason_changes_only_with_the_decision(history: History, spec: PipelineSpec, moment: float) -> None:
    now = decide(DRIFT, history, spec, NOW, NEW_DATA)
    soon = decide(DRIFT, history, spec, NOW + timedelta(seconds=moment), NEW_DATA)
    if now.kind == soon.kind and now.kind != DecisionKind.OVER_BUDGET:
        assert now == soon


# -- what must hold over time, whatever comes when --


@dataclass
class _Month:
    """A pipeline whose alerts, ticks and people come at any time, and whose runs end when they like."""

    spec: PipelineSpec
    now: datetime = NOW
    runs: list[Run] = field(default_factory=list)
    version: int = 5
    tried: int | None = None
    accepted_by_alert: list[datetime] = field(default_factory=list)

    def decide(self, event: Event) -> DecisionKind:
        history = History(tuple(reversed(self.runs)), self.tried)
        kind = decide(
            replace(event, last_seen=self.now), history, self.spec, self.now, Facts(self.version, "1", 3)
        ).kind
        if kind == DecisionKind.ACCEPTED:
            assert not any(run.active for run in self.runs), "two runs at once"
            if event.kind == "alert":
                self._keeps_budget_and_cooldown()
                self.accepted_by_alert.append(self.now)
            self.runs.append(Run("flights", f"r{len(self.runs)}", self.now, True, True, self.now))
            self.tried = self.version
        return kind

    def _keeps_budget_and_cooldown(self) -> None:
        retraining = self.spec.retraining
        since = self.now - retraining.budget.per
        assert all(run.accepted_at + retraining.cooldown <= self.now for run in self.runs)
        assert sum(run.accepted_at > since for run in self.runs) < retraining.budget.runs
        if retraining.budget.compute is not None:
            assert compute_spent(retraining.budget, self.runs, self.now) < retraining.budget.compute

    def end(self) -> None:
        self.runs = [replace(run, active=False, finished_at=run.finished_at or self.now) for run in self.runs]


_moves = st.one_of(
    st.tuples(st.just("drift"), st.none()),
    st.tuples(st.just("person"), st.none()),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("data"), st.none()),
    st.tuples(st.just("end"), st.none()),
    st.tuples(st.just("wait"), st.integers(-120, 3000)),  # minutes; a clock that was put back too
)
_budgets = st.builds(
    lambda cooldown, runs, per, compute: spec(
        schedule="@daily",
        cooldown=f"{cooldown}h",
        budget={"runs": runs, "per": f"{per}h", **({} if compute is None else {"compute": f"{compute}m"})},
    ),
    st.integers(0, 12),
    st.integers(1, 4),
    st.integers(1, 48),
    st.none() | st.integers(1, 600),
)


@given(policy=_budgets, moves=st.lists(_moves, max_size=60))
def test_no_sequence_of_events_breaks_budget_or_cooldown_or_starts_two_runs_or_starves_an_alert(
    policy: PipelineSpec, moves: list[tuple[str, int | None]]
) -> None:
    month = _Month(policy)
    for move, minutes in moves:
        if move == "wait":
            month.now += timedelta(minutes=minutes or 0)
        elif move == "end":
            month.end()
        elif move == "data":
            month.version += 1
        else:
            month.decide({"drift": DRIFT, "person": PERSON, "tick": TICK}[move])
    # An alert that goes on firing while runs end, data comes and nobody stands in the way is answered in bounded time.
    month.end()
    month.version += 1
    month.now += 2 * max(policy.retraining.cooldown, policy.retraining.budget.per) + timedelta(seconds=1)
    assert month.decide(DRIFT) == DecisionKind.ACCEPTED
