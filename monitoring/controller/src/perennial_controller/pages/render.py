"""Pages of what is shown. What comes from outside is escaped by the template engine; a page loads our style sheet, and nothing else."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from perennial_controller.pages.model import Glance, Overview, RunStory, Timeline
from perennial_controller.steps import Step
from perennial_spec.errors import PerennialError
from perennial_spec.units import format_share

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_TONES = {
    "good": "promoted success pass serving approved",
    "bad": "failed fail error refused lost rolled_back rolling_back broken breaker_open",
    "busy": "accepted running training rolling_out watching deferred queued wait",
    "held": "waiting paused quiet_hours merged cooling_down over_budget waiting_for_data superseded rejected inconclusive received",
}


def overview_page(overview: Overview) -> str:
    """All pipelines."""
    return _environment().get_template("overview.html.j2").render(overview=overview, at=overview.at)


def timeline_page(story: Timeline, glance: Glance | None, *, is_older: bool) -> str:
    """One pipeline's story; `is_older`: not its newest page."""
    return (
        _environment()
        .get_template("timeline.html.j2")
        .render(story=story, glance=glance, is_older=is_older, at=story.at)
    )


def problem_page(error: PerennialError) -> str:
    """What is wrong, and what to do next."""
    return _environment().get_template("problem.html.j2").render(error=error)


@cache
def style() -> str:
    """The style sheet."""
    return files("perennial_controller.pages").joinpath("style.css").read_text()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("perennial_controller.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "when": _when,
        "words": _words,
        "tone": _tone,
        "share": format_share,
        "twentieths": lambda share: round(share * 20),
        "took": _took,
        "figure": lambda value: "-" if value is None else f"{value:.4g}",
    }
    return environment


def _when(at: str | None) -> Markup:
    from markupsafe import Markup

    if not at:
        return Markup("-")
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return Markup("-")
    return Markup('<time datetime="{}">{}</time>').format(at, f"{moment:%Y-%m-%d %H:%M:%S} UTC")


def _words(text: str) -> str:
    return text.replace("_", " ")


def _tone(word: Any) -> str:
    key = str(word).replace(" ", "_")
    return next((tone for tone, words in _TONES.items() if key in words.split()), "plain")


def _took(of: RunStory | Step) -> str:
    if not of.started_at or not of.ended_at:
        return "-"
    seconds = (datetime.fromisoformat(of.ended_at) - datetime.fromisoformat(of.started_at)).total_seconds()
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
