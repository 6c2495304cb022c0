"""A story in sentences. Pure; what comes from outside is not marked up here."""

from __future__ import annotations

from datetime import datetime, timedelta

from perennial_cli.clients.controller import Decision
from perennial_cli.insight.choose import fired_at, time_of
from perennial_cli.insight.story import Figures, Freshness, Moved, Quality, Run, Step, Story, Version
from perennial_spec import names

_CAUSES = {
    names.ALERT_FEATURE_DRIFT: "its inputs have drifted",
    names.ALERT_PREDICTION_DRIFT: "its predictions have drifted",
    names.ALERT_QUALITY: "its quality is low",
    names.ALERT_DATA_STALE: "its data is stale",
    names.ALERT_REGRESSION: "its new champion is worse than it promised",
}
_HELD = {
    "received": "nothing is decided yet",
    "merged": "a run that is under way answers it too",
    "paused": "a person has paused retraining",
    "breaker_open": "too many retrainings have led to nothing",
    "cooling_down": "the last run was too short a time ago",
    "over_budget": "the budget of runs is used up",
    "waiting_for_data": "there is no new validated data to train on",
    "resolved": "it ended before it started a run",
    "ignored": "it starts no run",
    "not_allowed": "it may not start a run",
}
_OPEN = frozenset({"received", "merged", "paused", "breaker_open", "cooling_down", "over_budget", "waiting_for_data"})


def headline(story: Story) -> str:
    """The whole story in one sentence."""
    event = story.event
    if event is None:
        return _nothing(story)
    cause = cause_of(event)
    if event.decision in {"accepted", "merged"} and story.run is not None:
        return f"{story.pipeline}: {cause}; {result(story)}"
    if event.rolls_back:
        return f"{story.pipeline}: {cause}; {_taken_back(event)}"
    return f"{story.pipeline}: {cause}; {_HELD.get(event.decision, event.decision)}"


def _taken_back(event: Decision) -> str:
    if event.outcome == "success":
        at = when(time_of(event.finished_at))
        return f"the platform has taken the traffic back to version {event.model_version}, {at}"
    if event.outcome is not None:
        return f"the traffic was not taken back: {event.last_error or event.outcome}"
    return f"the traffic is being taken back to version {event.model_version}"


def _nothing(story: Story) -> str:
    if "controller" in story.away:
        return f"{story.pipeline}: the ledger is away, so what was decided is not known"
    if story.since is None:
        return f"{story.pipeline}: no alert and no retraining yet; nothing has been trained"
    return f"{story.pipeline}: no alert and no retraining since {when(story.since)}"


def cause_of(event: Decision) -> str:
    """Why something happened, as part of a sentence."""
    if event.kind == "alert":
        return _CAUSES.get(
            event.alert or "", f"{event.alert} fires" if not event.resolved_at else f"{event.alert} fired"
        )
    if event.kind == "person":
        return f"{event.actor or 'somebody'} asked for a run"
    if event.kind == "schedule":
        return "a run was due by schedule"
    return f"{event.kind} by {event.actor or 'somebody'}"


def result(story: Story) -> str:
    """What came of the run, as part of a sentence."""
    run, version = story.run, story.version
    assert run is not None
    if not run.is_over:
        return _under_way(run)
    stays = _stays(story)
    if version is None:
        failed = next((step.task for step in run.steps if step.state == "failed"), None)
        if run.state == "success":
            return "the run ended well and made no model"
        return f"its run ended with {run.state}" + (f" at {failed}" if failed else "") + stays
    return _judged(version, story) or f"version {version.number} was trained, and its run ended with {run.state}{stays}"


def _judged(version: Version, story: Story) -> str:
    number, stays = version.number, _stays(story)
    if version.verdict == "rolled_back":
        return f"version {number} was trained, and rolled back{stays}"
    if version.verdict == "rejected":
        return f"version {number} was trained, and did not pass the gates{stays}"
    if version.verdict != "promoted":
        return ""
    if story.now and story.now.champion not in {None, number}:
        return f"version {number} was trained and promoted; today version {story.now.champion} is champion"
    since = f" since {when(version.promoted_at)}" if version.promoted_at else ""
    return f"version {number} was trained and is champion{since}"


def _under_way(run: Run) -> str:
    if run.state == "not_delivered":
        return "a run is accepted, and Airflow does not have it yet"
    running = ", ".join(step.task for step in run.steps if step.state == "running")
    return f"it is being retrained ({running or run.state})"


def _stays(story: Story) -> str:
    return f"; version {story.now.champion} serves" if story.now and story.now.champion else ""


def happened(event: Decision, now: datetime) -> str:
    """The alert or the request, with its times."""
    at = fired_at(event)
    if event.kind != "alert":
        return f"{event.summary} ({event.kind}{f', {event.actor}' if event.actor else ''}), {when(at)}, {ago(at, now)}"
    ended = time_of(event.resolved_at)
    if ended is not None:
        return f"{event.alert} fired from {when(at)} until {when(ended, at)} ({length(ended - at)}), {ago(at, now)}"
    followed = f"; decision {event.successor_id} asks again" if event.successor_id else ""
    return f"{event.alert} fires since {when(at)}, {ago(at, now)}{followed}"


def moved(feature: Moved, threshold: float) -> str:
    """`temp: PSI 0.31 when it fired, 2.10 at most since; threshold 0.20`."""
    peak = f", {feature.peak:.2f} at most since" if feature.peak is not None and feature.peak > feature.psi else ""
    rows = f", on {feature.rows:,.0f} rows" if feature.rows is not None else ""
    name = "the predictions" if feature.feature == names.PREDICTION_FEATURE else feature.feature
    return f"{name}: PSI {feature.psi:.2f} when it fired{rows}{peak}; threshold {threshold:.2f}"


def quality(found: Quality) -> str:
    """`roc_auc 0.612 (0.590 to 0.634) on 2,310 labels, at least 0.680 is wanted`."""
    interval = f" ({found.low:.3f} to {found.high:.3f})" if found.low is not None and found.high is not None else ""
    labels = f" on {found.labels:,.0f} labels" if found.labels is not None else ""
    wanted = [f"at least {found.least:.3f}"] if found.least is not None else []
    wanted += [f"at most {found.most:.3f}"] if found.most is not None else []
    limit = f"; {' and '.join(wanted)} is wanted" if wanted else ""
    return f"version {found.version} had {found.metric} {found.value:.3f}{interval}{labels}{limit}"


def freshness(found: Freshness) -> str:
    """`the newest row was 2 d 3 h old; at most 1 d 12 h is wanted`."""
    age, limit = length(timedelta(seconds=found.age)), length(timedelta(seconds=found.limit))
    return f"the newest row was {age} old; at most {limit} is wanted"


def left(figures: Figures) -> str:
    """That Prometheus has nothing of that time."""
    return (
        f"Prometheus has no figures of {when(figures.at)}: they are older than what it keeps, or it was down. "
        "What the alert itself said:"
    )


def gates(version: Version) -> tuple[str, ...]:
    """Each gate with its figure."""
    return tuple(
        f"{'holds' if gate.passed else 'FAILS'}  {gate.name}"
        + (f": {gate.value:.4g}" if gate.value is not None else "")
        + (f", wanted {gate.bound}" if gate.bound else "")
        for gate in version.gates
    )


def step(found: Step) -> str:
    took = f" in {length(timedelta(seconds=found.seconds))}" if found.seconds else ""
    return f"{found.task}: {found.state}{took}" + (f" - {found.summary}" if found.summary else "")


def stands(story: Story) -> str:
    """How things are now."""
    now = story.now
    if now is None:
        return ""
    parts = [f"champion is version {now.champion}" if now.champion else "there is no champion"]
    shares = {version: weight for version, weight in now.weights.items() if weight > 0}
    if len(shares) > 1:
        parts.append("traffic: " + ", ".join(f"version {v} {w:.0%}" for v, w in shares.items()))
    parts.append("firing: " + ", ".join(now.firing) if now.firing else "no alert fires")
    if now.paused:
        parts.append(now.paused)
    return "; ".join(part for part in parts if part)


def actions(story: Story) -> tuple[tuple[str, str], ...]:
    """`(command, what it is for)`: what the person can do, the likeliest first."""
    name, event = story.pipeline, story.event
    if "controller" in story.away:
        return (("perennial status", "which parts are up"), ("perennial logs controller", "why it is away"))
    found: list[tuple[str, str]] = []
    if story.now and story.now.paused:
        found.append((f"perennial resume {name}", "let alerts start retrainings again"))
    if story.run is None and (event is None or event.decision in _OPEN):
        if event is not None and event.decision == "waiting_for_data":
            found.append((f"perennial ingest {name}", "look for new data at the sources now"))
        found.append((f"perennial run {name}", "train now, whatever cooldown and budget say"))
    if (story.run and not story.run.is_over) or (story.version and story.version.verdict == "promoted"):
        found.append((f"perennial rollback {name} --dry-run", "take all of the traffic back to the version before"))
    if story.run and story.run.state in {"failed", "refused", "lost"}:
        found.append((f"perennial run {name}", "train again, once the cause is mended"))
    if event is not None and event.kind == "alert" and not event.resolved_at and not (story.now and story.now.paused):
        found.append((f'perennial pause {name} --for 2h --reason "..."', "hold retraining while you look"))
    last = next((row for row in story.around if row.started_run and row.kind != "data"), None)
    if last is not None:
        found.append((f"perennial why {name} --decision {last.id}", "another retraining of that time"))
    found.append((f"perennial report {name}", "the last days as one page with plots"))
    return tuple(found)


def runbook(event: Decision) -> str:
    """The alert's page; empty when it names none."""
    return str((event.payload.get("annotations") or {}).get("runbook_url", ""))


def description(event: Decision) -> str:
    """What the alert said of itself when it fired."""
    notes = event.payload.get("annotations") or {}
    return " ".join(str(notes.get("description") or event.summary).split())


def when(at: datetime | None, day_of: datetime | None = None) -> str:
    """`2026-11-26 07:31:02 UTC`; the time alone on the same day as `day_of`."""
    if at is None:
        return "an unknown time"
    same_day = day_of is not None and at.date() == day_of.date()
    return f"{at:%H:%M:%S}" if same_day else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def ago(at: datetime, now: datetime) -> str:
    return f"{length(now - at)} ago"


def length(span: timedelta) -> str:
    """A length of time in its two largest units: `3 h 12 min`."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 1 <= span.total_seconds() * 10:
        return f"{span.total_seconds():.1f} s"
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for place, (unit, size) in enumerate(units):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            if place + 1 < len(units) and rest // units[place + 1][1]:
                return f"{whole} {unit} {rest // units[place + 1][1]} {units[place + 1][0]}"
            return f"{whole} {unit}"
    return "0 s"
