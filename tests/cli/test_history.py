"""The timeline and the overview in the terminal."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest
from rich.console import Console

from perennial_cli.clients.controller import Controller
from perennial_cli.history.lines import glances, moments
from perennial_cli.history.watch import Watch
from perennial_spec.errors import PlatformError

AT, LATER = "2026-06-01T12:00:00+00:00", "2026-06-01T12:00:30+00:00"


def step(task: str, state: str = "success", verdict: str | None = "pass", summary: str = "") -> dict[str, Any]:
    ended = LATER if state != "running" else None
    return {"task": task, "state": state, "started_at": AT, "ended_at": ended, "verdict": verdict, "summary": summary}


def moment(state: str = "success", steps: tuple[dict[str, Any], ...] = (), **changes: Any) -> dict[str, Any]:
    ended = LATER if state == "success" else None
    verdict, version = ("promoted", "2") if ended else (None, None)
    run = {
        "run_id": "alert__1",
        "state": state,
        "started_at": AT,
        "ended_at": ended,
        "steps": list(steps),
        "error": None,
        "verdict": verdict,
        "model_version": version,
    }
    return {
        "id": 3,
        "at": AT,
        "heading": "PerennialFeatureDrift",
        "actor": None,
        "copies": 2,
        "summary": "temp [bold]has drifted",
        "decision": "accepted",
        "reason": "drift: data version 5",
        "run": run,
        "answered_by": None,
        "asks_again": None,
        **changes,
    }


def story(*found: dict[str, Any], away: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"pipeline": "flights", "moments": list(found), "older": None, "away": list(away)}


def overview(run: str | None = None) -> dict[str, Any]:
    share = [{"version": "1", "share": 0.9, "is_champion": True}, {"version": "2", "share": 0.1, "is_champion": False}]
    flights = {
        "pipeline": "flights",
        "state": "rolling out",
        "says": "version 2 has 10%",
        "traffic": share,
        "firing": [],
        "run": run,
    }
    churn = {
        "pipeline": "churn",
        "state": "serving",
        "says": "version 3",
        "traffic": [],
        "firing": ["Other"],
        "run": None,
    }
    return {"pipelines": [flights, churn], "away": []}


def test_the_story_is_told_event_by_event_and_step_by_step() -> None:
    evaluated = step("evaluate", summary="3 of 3 gates hold")
    told = [text for text, _ in moments(story(moment(steps=(evaluated,)), away=("Airflow does not answer",)))]
    assert told == [
        "Airflow does not answer",
        "2026-06-01 12:00:00  PerennialFeatureDrift, 2 more copies  (decision 3)",
        "    temp [bold]has drifted",
        "    accepted: drift: data version 5",
        "    run alert__1: promoted, version 2, 30.0 s",
        "        evaluate pass 30.0 s: 3 of 3 gates hold",
    ]


def test_what_another_run_answers_and_what_is_asked_again_is_told() -> None:
    merged = moment(run=None, decision="merged", answered_by="r1", asks_again=9, actor="ann", copies=0)
    told = [text for text, _ in moments(story(merged))]
    assert told[0] == "2026-06-01 12:00:00  PerennialFeatureDrift by ann  (decision 3)"
    assert told[-2:] == ["    answered by run r1", "    asked again by decision 9: its run did not succeed"]
    assert list(moments(story())) == [("nothing has happened", "")]


def test_a_glance_is_a_line_and_what_fires_below_it() -> None:
    told = [text.rstrip() for text, _ in glances(overview())]
    assert told == [
        "flights  rolling out  version 2 has 10%",
        "                      traffic: version 1 (champion) 90%, version 2 10%",
        "churn    serving      version 3",
        "                      firing: Other",
    ]


class Told:
    """In place of the controller: what it answers, look by look."""

    def __init__(self, *looks: tuple[dict[str, Any], dict[str, Any]] | PlatformError) -> None:
        self.looks = list(looks)

    def overview(self) -> dict[str, Any]:
        look = self.looks.pop(0)
        if isinstance(look, PlatformError):
            raise look
        self.now = look
        return look[0]

    def timeline(self, *_: Any) -> dict[str, Any]:
        return self.now[1]


def watched(controller: Told, pipeline: str | None = None, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    Watch(cast("Controller", controller), pipeline, until_done=True, sleep=lambda _: None).run(console)
    return out.getvalue()


def looks() -> Told:
    first = (overview("alert__1"), story(moment("running", (step("train", "running", None),))))
    second = (overview("alert__1"), story(moment("running", (step("train"), step("deploy_10", "running", None)))))
    return Told(first, PlatformError("no answer"), second, (overview(), story(moment())))


def test_without_a_terminal_each_change_is_a_line_until_the_run_is_over() -> None:
    told = watched(looks(), "flights").splitlines()
    steps = [line.strip() for line in told if line.strip().startswith(("train", "deploy"))]
    assert steps == ["train running", "train pass 30.0 s", "deploy_10 running"]
    assert "the controller does not answer: no answer" in told
    assert not any("churn" in line for line in told)
    assert "\x1b" not in "".join(told)


def test_in_a_terminal_it_is_redrawn_and_says_how_it_ends() -> None:
    told = watched(looks(), terminal=True)
    assert "Ctrl-C ends this." in told
    assert "deploy_10 running" in told


def test_a_controller_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial_cli.history.watch.AWAY_SECONDS", -1.0)
    with pytest.raises(PlatformError, match="no answer"):
        watched(Told(PlatformError("no answer")))
