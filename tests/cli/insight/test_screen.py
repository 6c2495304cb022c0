"""What a person reads, for every way in which a story can go."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from ledger_rows import NOON, RUNBOOK, bystander, decision
from rich.console import Console

from perennial_cli.insight.screen import show
from perennial_cli.insight.story import (
    Bin,
    Drift,
    Figures,
    Freshness,
    Gate,
    Moved,
    Now,
    Quality,
    Run,
    Step,
    Story,
    Version,
)

LATER = NOON + timedelta(hours=3)
BINS = (Bin("(-inf,10]", 0.5, 0.02), Bin("(10,inf)", 0.495, 0.97), Bin("missing", 0.005, 0.01))
DRIFT = Drift("1", 0.2, "1h", (Moved("temp", 0.31, 2.1, 1234, BINS), Moved("wind", 0.25, None, None)))
VERSION = Version(
    "2",
    "promoted",
    "",
    (Gate("roc_auc", 0.7312, ">= 0.62", True), Gate("gain", 0.004, ">= 0.01", False)),
    "2",
    NOON,
    NOON + timedelta(minutes=9),
    "temp PSI 0.31 > 0.20",
    ("champion",),
)
RUN = Run(
    "flights",
    "alert__1",
    "http://airflow/dags/flights/runs/alert__1",
    "success",
    NOON,
    NOON + timedelta(minutes=10),
    (Step("train", "success", 60.0, "version 2, trained on 9 rows"),),
)
STORY = Story(
    "flights",
    LATER,
    decision(1),
    figures=Figures(NOON, drift=DRIFT),
    run=RUN,
    version=VERSION,
    now=Now("2", {"2": 1.0}, ()),
)
FAILED = replace(RUN, state="failed", steps=(Step("validate", "failed", 1, ""),))
RUNNING = replace(RUN, state="running", steps=(Step("train", "running", None, ""),))
WAITING = decision(1, decision="waiting_for_data", run_id=None)


def shown(story: Story, width: int = 100, **console: Any) -> str:
    text = io.StringIO()
    show(Console(file=text, width=width, **console), story)
    return text.getvalue()


def test_the_first_line_is_the_whole_story() -> None:
    first = shown(STORY, 200).splitlines()[0]
    assert (
        first == "flights: its inputs have drifted; version 2 was trained and is champion since 2026-11-20 12:09:00 UTC"
    )


def test_what_moved_is_told_with_figures_threshold_and_histograms() -> None:
    text = shown(STORY)
    assert "temp: PSI 0.31 when it fired, on 1,234 rows, 2.10 at most since; threshold 0.20" in text
    line = next(line for line in text.splitlines() if line.strip().startswith("above 10"))
    assert "50% ████" in line
    assert "97% ████" in line
    assert line.count("█", 0, line.index("97%")) < line.count("█", line.index("97%"))
    assert "also above the threshold, by PSI: wind 0.25" in text


def test_gates_run_and_runbook_are_told() -> None:
    text = shown(STORY)
    assert "holds  roc_auc: 0.7312, wanted >= 0.62" in text
    assert "FAILS  gain: 0.004, wanted >= 0.01" in text
    assert "run alert__1: success, 10 min" in text
    assert "train: success in 1 min - version 2, trained on 9 rows" in text
    assert RUNBOOK in text


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_no_line_but_an_address_is_wider_than_the_terminal_or_ends_in_blanks(width: int) -> None:
    for line in shown(STORY, width).splitlines():
        assert len(line) <= width or "://" in line
        assert line == line.rstrip()
    assert f"  {RUNBOOK}\n" in shown(STORY, width)


def test_without_a_terminal_there_are_no_codes_and_without_utf8_no_blocks() -> None:
    assert "\x1b" not in shown(STORY)
    assert "\x1b" in shown(STORY, force_terminal=True)
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show(Console(file=raw, width=100), STORY)
    raw.flush()
    assert b"####" in raw.buffer.getvalue()  # type: ignore[attr-defined]


def test_words_from_outside_are_not_taken_as_markup() -> None:
    text = shown(replace(STORY, event=decision(1, reason="[red]no[/] [link=x]")))
    assert "[red]no[/] [link=x]" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": replace(VERSION, verdict="rejected")}, "version 2 was trained, and did not pass the gates; version 1 serves"),
        ({"version": replace(VERSION, verdict="rolled_back")}, "version 2 was trained, and rolled back; version 1 serves"),
        ({}, "version 2 was trained and promoted; today version 1 is champion"),
        ({"version": None, "run": FAILED}, "its run ended with failed at validate; version 1 serves"),
        ({"version": None, "run": RUNNING}, "it is being retrained (train)"),
        ({"version": None, "run": replace(RUN, state="not_delivered", steps=())}, "a run is accepted, and Airflow does not have it yet"),
        ({"version": None, "run": replace(RUN, state="lost", steps=())}, "its run ended with lost; version 1 serves"),
        ({"version": None, "run": None, "event": WAITING}, "there is no new validated data to train on"),
        ({"version": None, "run": None, "event": decision(1, decision="paused", run_id=None)}, "a person has paused retraining"),
        ({"version": None, "run": None, "event": bystander(1)}, "PerennialNoPredictions fired; it starts no run"),
    ],
)  # fmt: skip
def test_every_outcome_has_its_sentence(changes: dict[str, Any], words: str) -> None:
    story = replace(STORY, now=Now("1", {"1": 1.0}, ()), **changes)
    assert shown(story, 200).splitlines()[0].endswith(words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outcome": "success"}, "the platform has taken the traffic back to version 1, 2026-11-20 12:10:00 UTC"),
        ({"outcome": None, "finished_at": None}, "the traffic is being taken back to version 1"),
        (
            {"outcome": "refused", "last_error": "champion is version 3 now"},
            "the traffic was not taken back: champion is version 3",
        ),
    ],
)
def test_a_rollback_by_the_platform_is_no_run_and_says_what_came_of_it(changes: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {
        "alert": "PerennialRegression",
        "action": "rollback",
        "decision": "rolling_back",
        "dag_id": "flights.rollback",
    }
    event = decision(1, model_version="1", **given, **changes)
    assert not event.started_run
    text = " ".join(shown(replace(STORY, event=event, run=None, version=None)).split())
    assert f"flights: its new champion is worse than it promised; {words}" in text


def test_low_quality_is_told_with_its_interval_and_limit() -> None:
    quality = Quality("1", "roc_auc", 0.612, 0.59, 0.634, 0.68, None, 2310)
    event = decision(1, alert="PerennialQualityLow")
    text = shown(replace(STORY, event=event, figures=Figures(NOON, quality=quality)), 200)
    assert "flights: its quality is low" in text
    assert "version 1 had roc_auc 0.612 (0.590 to 0.634) on 2,310 labels; at least 0.680 is wanted" in text


def test_stale_data_is_told_with_its_age() -> None:
    event = decision(1, alert="PerennialDataStale")
    text = shown(replace(STORY, event=event, figures=Figures(NOON, freshness=Freshness(190_000, 129_600))), 200)
    assert "the newest row was 2 d 4 h old; at most 1 d 12 h is wanted" in text


def test_a_person_is_named_with_the_reason() -> None:
    event = decision(1, kind="person", alert=None, actor="mara", summary="the weather feed is back", payload={})
    text = shown(replace(STORY, event=event, figures=None), 200)
    assert text.startswith("flights: mara asked for a run; ")
    assert "the weather feed is back (person, mara)" in text


def test_figures_that_have_left_prometheus_are_said_to_and_the_alert_speaks_for_itself() -> None:
    text = shown(replace(STORY, figures=Figures(NOON, gone=True)), 300)
    assert "Prometheus has no figures of 2026-11-20 12:00:00 UTC" in text
    assert "Inputs of flights have moved." in text


def test_when_nothing_ever_happened_that_is_said() -> None:
    nothing = Story("flights", LATER, None, since=NOON, now=Now("1", {"1": 1.0}, ()))
    assert shown(nothing).startswith("flights: no alert and no retraining since 2026-11-20 12:00:00 UTC")
    never = replace(nothing, since=None, now=Now(None))
    assert shown(never).startswith("flights: no alert and no retraining yet; nothing has been trained")
    assert "perennial run flights" in shown(never)


def test_a_part_that_is_away_is_named_and_the_rest_is_told() -> None:
    text = shown(replace(STORY, run=replace(RUN, state="success", steps=()), away={"airflow": "cannot be reached"}))
    assert "Not known: airflow is away" in text
    assert "temp: PSI 0.31" in text


def test_without_the_ledger_the_registry_tells_what_was_trained_last() -> None:
    text = shown(
        Story("flights", LATER, None, version=VERSION, now=Now("2"), away={"controller": "cannot be reached"}), 200
    )
    assert text.startswith("flights: the ledger is away, so what was decided is not known")
    assert "temp PSI 0.31 > 0.20" in text
    assert "perennial run" not in text
    assert "perennial logs controller" in text


def test_a_row_that_asks_again_says_for_whom() -> None:
    before = decision(7, outcome="failed", successor_id=1)
    assert "asks again for decision 7, whose run ended with failed" in shown(replace(STORY, before=before))


def test_the_story_as_json_can_be_read_back() -> None:
    document = json.loads(json.dumps(STORY.to_json()))
    assert document["figures"]["drift"]["features"][0]["peak"] == 2.1
    assert document["at"] == LATER.isoformat()
    assert document["version"]["gates"][1] == {"name": "gain", "value": 0.004, "bound": ">= 0.01", "passed": False}
