"""Whether an alert about a new champion takes the traffic back: pure, as the rest of the policy.

Within `deployment.watch` after a promotion, a champion that turns out to be worse is rolled back to the version before it, and not trained
anew: that version is known to be good, and it serves within seconds. One step and no further: a version to which the traffic was taken
back is no new champion, and what goes on being wrong then is not the promotion's fault.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from perennial_controller.cases import Event, Facts


def why_not(event: Event, facts: Facts, watch: timedelta, now: datetime) -> str | None:
    """Why the traffic is not taken back for an alert, in words; None: it is.

    Args:
        event: an alert whose action is `rollback`.
        facts: of the registry.
        watch: `deployment.watch`; 0: nothing is ever taken back.
        now: aware.
    """
    champion, promoted = facts.champion_version, facts.champion_promoted_at
    if champion is None:
        return "there is no champion"
    if event.version is not None and event.version != champion:
        return f"it is about version {event.version}, and version {champion} is champion"
    if not watch:
        return "deployment.watch is off"
    if facts.previous_version is None:
        return f"version {champion} is the first champion: there is none to go back to"
    return _not_new(champion, promoted, facts, watch, now)


def _not_new(champion: str, promoted: datetime | None, facts: Facts, watch: timedelta, now: datetime) -> str | None:
    if promoted is None:
        return f"it is not known when version {champion} was promoted"
    if facts.champion_restored_at is not None and facts.champion_restored_at >= promoted:
        return f"the traffic was taken back to version {champion} before, and is taken back one step only"
    if promoted + watch < now:
        return f"version {champion} was promoted {promoted:%Y-%m-%d %H:%M:%S} UTC, longer ago than deployment.watch"
    return None
