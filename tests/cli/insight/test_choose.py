from __future__ import annotations

from datetime import timedelta

from ledger_rows import NOON, bystander, decision

from perennial_cli.insight.choose import around, choose, end_of, fired_at, time_of

LATER = NOON + timedelta(days=1)


def test_without_rows_there_is_nothing_to_tell() -> None:
    assert choose([], LATER) is None


def test_the_newest_retraining_is_told() -> None:
    assert choose([decision(2, 60), decision(1)], LATER) == decision(2, 60)


def test_an_alert_that_starts_nothing_does_not_hide_the_retraining_that_it_came_with() -> None:
    assert choose([bystander(2, 1), decision(1)], LATER) == decision(1)


def test_an_alert_that_starts_nothing_is_told_once_the_retraining_is_over() -> None:
    assert choose([bystander(2, 60), decision(1)], LATER) == bystander(2, 60)


def test_an_alert_that_starts_nothing_is_told_when_there_is_nothing_else() -> None:
    assert choose([bystander(1)], LATER) == bystander(1)


def test_news_of_data_and_notes_are_not_what_is_told() -> None:
    rows = [decision(4, 90, kind="rollback"), decision(3, 80, kind="pause"), decision(2, 70, kind="data"), decision(1)]
    assert choose(rows, LATER) == decision(1)
    assert choose(rows[:3], LATER) is None


def test_an_event_lasts_until_its_run_has_ended_and_its_alert_is_resolved() -> None:
    assert end_of(decision(1), LATER) == NOON + timedelta(minutes=12)
    assert end_of(decision(1, resolved_at=None), LATER) == LATER
    assert end_of(decision(1, finished_at=None), LATER) == LATER
    assert end_of(decision(1, resolved_at=None, successor_id=2), LATER) == NOON + timedelta(minutes=10)


def test_around_an_event_are_the_later_rows_and_those_shortly_before() -> None:
    rows = [decision(4, 200), decision(3, 100), decision(2, 97), decision(1)]
    assert [each.id for each in around(rows, rows[1])] == [4, 2]


def test_an_alert_fired_when_alertmanager_says_and_a_request_when_it_came() -> None:
    assert fired_at(decision(1, payload={"startsAt": "2026-11-20T11:59:00+00:00"})) == NOON - timedelta(minutes=1)
    assert fired_at(decision(1, payload={"startsAt": "nonsense"})) == NOON
    assert fired_at(decision(1, kind="person", payload={"asked": "x"})) == NOON


def test_a_time_without_a_zone_is_utc() -> None:
    assert time_of("2026-11-20T12:00:00") == NOON
    assert time_of(None) is None
