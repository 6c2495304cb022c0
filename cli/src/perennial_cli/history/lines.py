"""What the controller tells (`/api/v1/pipelines`, `.../timeline`), as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

Json = dict[str, Any]
Line = tuple[str, str]
"""Text, and its style; empty: none."""
_STYLES = {
    "green": "promoted success pass serving",
    "red": "failed fail error refused lost rolled_back rolling_back broken breaker_open",
    "magenta": "accepted running training rolling_out watching deferred",
    "yellow": "paused quiet_hours merged cooling_down over_budget waiting_for_data superseded rejected inconclusive waiting",
}


def moments(story: Json) -> Iterator[Line]:
    """The timeline, the newest first."""
    for part in story["away"]:
        yield f"{part}", "yellow"
    for moment in story["moments"]:
        yield from _moment(moment)
    if not story["moments"]:
        yield "nothing has happened", ""


def _moment(moment: Json) -> Iterator[Line]:
    by = f" by {moment['actor']}" if moment["actor"] else ""
    copies = f", {moment['copies']} more copies" if moment["copies"] else ""
    yield f"{when(moment['at'])}  {moment['heading']}{by}{copies}  (decision {moment['id']})", "bold"
    yield f"    {moment['summary']}", ""
    yield f"    {words(moment['decision'])}: {moment['reason']}", style_of(moment["decision"])
    if moment["run"]:
        yield from _run(moment["run"])
    elif moment["answered_by"]:
        yield f"    answered by run {moment['answered_by']}", ""
    if moment["asks_again"]:
        yield f"    asked again by decision {moment['asks_again']}: its run did not succeed", ""


def _run(run: Json) -> Iterator[Line]:
    came_to = run["verdict"] or run["state"]
    model = f", version {run['model_version']}" if run["model_version"] else ""
    took = f", {took_of(run)}" if run["ended_at"] else ""
    yield f"    run {run['run_id']}: {words(came_to)}{model}{took}", style_of(came_to)
    if run["error"]:
        yield f"        {run['error']}", "red"
    for step in run["steps"]:
        yield from step_lines(step)


def step_lines(step: Json) -> Iterator[Line]:
    """One step of a run."""
    state = step["verdict"] or step["state"]
    took = f" {took_of(step)}" if step["ended_at"] else ""
    summary = f": {step['summary']}" if step["summary"] else ""
    yield f"        {step['task']} {words(state)}{took}{summary}", style_of(state)


def glances(overview: Json) -> Iterator[Line]:
    """Every pipeline at a glance, one line each, and what is wrong with it below."""
    for part in overview["away"]:
        yield part, "yellow"
    width = max((len(each["pipeline"]) for each in overview["pipelines"]), default=0)
    for each in overview["pipelines"]:
        yield f"{each['pipeline']:<{width}}  {each['state']:<11}  {each['says']}", style_of(each["state"])
        if each["traffic"]:
            shares = ", ".join(
                f"version {version['version']}{' (champion)' if version['is_champion'] else ''} {version['share']:.0%}"
                for version in each["traffic"]
            )
            yield f"{'':<{width}}  {'':<11}  traffic: {shares}", "dim"
        if each["firing"]:
            yield f"{'':<{width}}  {'':<11}  firing: {', '.join(each['firing'])}", "red"
    if not overview["pipelines"]:
        yield "there is no pipeline yet: perennial new NAME", ""


def active(story: Json) -> Json | None:
    """The run that has not ended, of the newest that are told."""
    runs = (moment["run"] for moment in story["moments"] if moment["run"])
    return next((run for run in runs if run["state"] in {"waiting", "running"}), None)


def when(at: str) -> str:
    """`2026-06-01 12:00:00` in UTC."""
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S}"


def words(text: str) -> str:
    return text.replace("_", " ")


def style_of(word: str) -> str:
    """The colour of a decision, verdict or state."""
    key = word.replace(" ", "_")
    return next((style for style, those in _STYLES.items() if key in those.split()), "")


def took_of(of: Json) -> str:
    """How long a run or step took."""
    if not of["started_at"]:
        return "-"
    seconds = (datetime.fromisoformat(of["ended_at"]) - datetime.fromisoformat(of["started_at"])).total_seconds()
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
