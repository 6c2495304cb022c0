"""What holds an event back, or answers it, whatever the data: its end, a person, the night, the breaker, a run that is active."""

from __future__ import annotations

from perennial_controller.cases import Decision, DecisionKind
from perennial_controller.policy.case import Case, trigger_of, when
from perennial_spec import names
from perennial_spec.units import format_duration


def ended(case: Case) -> Decision | None:
    if case.event.resolved:
        return Decision(DecisionKind.RESOLVED, "the alert ended before it started a run")
    seen = case.event.last_seen
    if seen is not None and seen + case.expiry < case.now:
        return Decision(
            DecisionKind.RESOLVED,
            f"no copy of the alert came since {when(seen)}; after {format_duration(case.expiry)} it is taken as ended",
        )
    return None


def superseded(case: Case) -> Decision | None:
    """A newer event says the same."""
    if case.event.superseded_by is None:
        return None
    return Decision(DecisionKind.SUPERSEDED, f"decision {case.event.superseded_by} is about the same, and newer")


def paused(case: Case) -> Decision | None:
    pause = next((pause for pause in case.history.pauses if pause.lasts(case.now)), None)
    if pause is None:
        return None
    what = "all pipelines" if pause.of_all else "this pipeline"
    until = f"until {when(pause.until)}" if pause.until else "until somebody resumes"
    return Decision(
        DecisionKind.PAUSED, f"{pause.actor} has paused {what} on {when(pause.since)}, {until}: {pause.reason}"
    )


def quiet(case: Case) -> Decision | None:
    """`retraining.quiet_hours`."""
    hours = case.spec.retraining.quiet_hours
    if hours is None or (until := hours.until(case.now)) is None:
        return None
    if (trigger := trigger_of(case.event)) is not None and trigger in hours.let_through:
        return None
    return Decision(DecisionKind.QUIET_HOURS, f"retraining.quiet_hours last until {when(until)}")


def breaker(case: Case) -> Decision | None:
    limit = case.spec.monitoring.runs.without_promotion
    if case.history.in_vain < limit:
        return None
    return Decision(
        DecisionKind.BREAKER_OPEN,
        f"{limit} retrainings by alerts or more have led to no new champion (monitoring.runs.without_promotion): "
        f"no alert starts another until somebody has looked, and says: perennial resume {case.event.pipeline}",
    )


def active(case: Case) -> Decision | None:
    run = case.active(names.dag_id(case.event.pipeline))
    if run is None:
        return None
    reason = f"run {run.run_id}, accepted {when(run.accepted_at)}, has not finished"
    return Decision(DecisionKind.MERGED, reason, run.run_id)


def data_waiting(case: Case) -> Decision | None:
    # A data run that has begun may have looked before this data came: only one that is yet to start answers for it.
    runs = (run for run in case.history.runs if run.dag_id == names.data_dag_id(case.event.pipeline))
    run = next((run for run in runs if run.active and not run.delivered), None)
    if run is None:
        return None
    return Decision(DecisionKind.MERGED, f"run {run.run_id} has not started yet and will find this data", run.run_id)
