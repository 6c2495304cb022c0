"""Whether there is anything new to learn from."""

from __future__ import annotations

from perennial_controller.cases import Decision, DecisionKind
from perennial_controller.policy.case import Case, needs_facts


def new_data(case: Case) -> Decision | None:
    if not needs_facts(case.event):  # stale data: the run's own ingest looks for new data
        return None
    newest = case.facts.validated_version
    if newest is None:
        return Decision(DecisionKind.WAITING_FOR_DATA, "no version of the data has passed validation yet")
    champion, tried = case.facts.champion_data_version, case.history.tried_data_version
    if champion is not None and newest <= champion:
        return Decision(
            DecisionKind.WAITING_FOR_DATA,
            f"data version {newest} is the newest that passed validation, and the champion "
            f"(version {case.facts.champion_version}) was trained on {champion}",
        )
    if tried is not None and newest <= tried:
        return Decision(
            DecisionKind.WAITING_FOR_DATA,
            f"data version {newest} is the newest that passed validation, and a model was already trained on {tried}",
        )
    seen = case.event.seen_data_version
    if seen is not None and newest <= seen:
        return Decision(
            DecisionKind.WAITING_FOR_DATA,
            f"data version {newest} is the newest that passed validation, and the run that this alert had on {seen} did not succeed",
        )
    return None


def new_labels(case: Case) -> Decision | None:
    """`retraining.min_new_labels`: rows with a label that have landed since the last training."""
    wanted, newest = case.spec.retraining.min_new_labels, case.facts.validated_version
    if not wanted or newest is None or not needs_facts(case.event):
        return None
    trained = [v for v in (case.facts.champion_data_version, case.history.tried_data_version) if v is not None]
    before = case.facts.labelled.get(max(trained, default=-1), 0 if not trained else None)
    now = case.facts.labelled.get(newest)
    if now is None or before is None or now - before >= wanted:  # records of before this was counted hold nothing up
        return None
    since = f"since version {max(trained)}, which a model was trained on" if trained else "so far"
    return Decision(
        DecisionKind.WAITING_FOR_DATA,
        f"{max(now - before, 0):,} rows with a label have landed {since}; retraining.min_new_labels is {wanted:,}",
    )
