"""A story on a terminal, as wide as that is; plain text where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from perennial_cli.clients.controller import Decision
from perennial_cli.insight import words
from perennial_cli.insight.bins import largest_changes, spoken
from perennial_cli.insight.choose import time_of
from perennial_cli.insight.story import Bin, Drift, Figures, Story, Version

INDENT = 2
MOST_BINS = 14
MOST_REASON = 160
"""Characters of a decision in the list of others."""
_NARROW, _WIDEST_BAR, _WIDEST_NAME = 44, 24, 28
_SHARE = 5
"""Characters of ` 100%`."""


@dataclass(frozen=True)
class Section:
    """A title, and paragraphs that are wrapped to the width; those that are `no_wrap` are shown whole."""

    title: str
    lines: tuple[Text, ...]


def show(console: Console, story: Story) -> None:
    """Print the story, as wide as the console is."""
    for section in sections(story, console.width, blocks=console.encoding.lower().startswith("utf")):
        if section.title:
            console.print(Text(f"\n{section.title}", style="bold blue"))
        indent = INDENT if section.title else 0
        for paragraph in section.lines:
            for line in [paragraph] if paragraph.no_wrap else paragraph.wrap(console, console.width - indent):
                line.rstrip()
                console.print(Text(" " * indent).append_text(line), crop=False, overflow="ignore", no_wrap=True)


def sections(story: Story, width: int, *, blocks: bool) -> Iterator[Section]:
    """The parts of the page; histograms fit into `width`, with bars of blocks, or of `#`."""
    yield Section("", (Text(words.headline(story), style="bold"),))
    if story.event is not None:
        yield Section("What happened", tuple(_happened(story, width - INDENT, blocks=blocks)))
        yield Section("What was decided", tuple(_decided(story)))
        if story.run is not None:
            yield Section("What came of it", tuple(_came(story)))
    elif story.version is not None:
        because = Text(f"trained {words.when(story.version.trained_at)}: {story.version.why}")
        yield Section("The newest version", (because, *_version(story.version)))
    if story.around:
        title = "At the same time and later" if story.event else "On record"
        yield Section(title, tuple(Text(_brief(decision)) for decision in story.around))
    yield Section("Now", (Text(words.stands(story)),))
    for part, said in sorted(story.away.items()):
        yield Section(f"Not known: {part} is away", (Text(said, style="yellow"),))
    yield Section("What you can do", tuple(_actions(story)))


def _actions(story: Story) -> Iterator[Text]:
    commands = words.actions(story)
    widest = max(len(command) for command, _ in commands)
    for command, purpose in commands:
        yield Text.assemble((command.ljust(widest), "cyan"), f"  {purpose}")
    if story.event is not None and (link := words.runbook(story.event)):
        yield Text(link, no_wrap=True)


def _happened(story: Story, width: int, *, blocks: bool) -> Iterator[Text]:
    event, figures = story.event, story.figures
    assert event is not None
    yield Text(words.happened(event, story.at))
    if event.kind != "alert":
        return
    if figures is not None and figures.drift is not None and figures.drift.features:
        yield from _drift(figures.drift, width, blocks=blocks)
    elif figures is not None and figures.quality is not None:
        yield Text(words.quality(figures.quality))
    elif figures is not None and figures.freshness is not None:
        yield Text(words.freshness(figures.freshness))
    else:
        yield from _as_the_alert_said(event, figures)


def _as_the_alert_said(event: Decision, figures: Figures | None) -> Iterator[Text]:
    if figures is not None and figures.gone:
        yield Text(words.left(figures), style="yellow")
    yield Text(words.description(event))


def _drift(drift: Drift, width: int, *, blocks: bool) -> Iterator[Text]:
    yield Text(f"over {drift.window}, against what version {drift.version} was trained on:")
    others = []
    for feature in drift.features:
        if feature.bins:
            yield Text(words.moved(feature, drift.threshold), style="bold")
            yield from histograms(feature.bins, width, blocks=blocks)
        else:
            others.append(f"{feature.feature} {feature.psi:.2f}")
    if others:
        yield Text("also above the threshold, by PSI: " + ", ".join(others))


def histograms(bins: tuple[Bin, ...], width: int, *, blocks: bool) -> Iterator[Text]:
    """Reference beside live, bin by bin, in at most `width` characters."""
    shown = largest_changes(bins, MOST_BINS)
    name = min(max(len(spoken(each.name)) for each in shown), _WIDEST_NAME, max(8, width // 3))
    bar = min((width - name - 2 * _SHARE - 3) // 2, _WIDEST_BAR) if width >= _NARROW else 0
    full = max(max(each.reference, each.live) for each in shown) or 1.0
    column = max(9, _SHARE + (bar + 1 if bar else 0))  # "reference" has nine letters
    yield Text(f"{'':{name}} {'reference':{column}} live", style="dim", no_wrap=True)
    for each in shown:
        colour = "magenta" if each.live > each.reference else "cyan"
        yield Text.assemble(
            f"{_cut(spoken(each.name), name):{name}} ",
            (_bar(each.reference, full, bar, blocks=blocks).ljust(column + 1), "dim"),
            (_bar(each.live, full, bar, blocks=blocks), colour),
            no_wrap=True,
        )
    if len(shown) < len(bins):
        yield Text(f"and {len(bins) - len(shown)} more bins that have changed less", style="dim")


def _bar(share: float, full: float, width: int, *, blocks: bool) -> str:
    text = f"{share:.0%}" if share >= 0.0095 or share == 0 else "<1%"
    return f"{text:>{_SHARE - 1}} {('█' if blocks else '#') * round(width * share / full)}".rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def _decided(story: Story) -> Iterator[Text]:
    event = story.event
    assert event is not None
    if story.before is not None:
        yield Text(f"asks again for decision {story.before.id}, whose run ended with {story.before.outcome}")
    yield Text(f"decision {event.id}: {event.decision} - {event.reason}")
    trail = event.trail if len(event.trail) > 1 else []
    for step in trail[-5:]:
        at = time_of(step.get("at"))
        yield Text(f"{words.when(at)}  {step.get('decision', '')} - {step.get('reason', '')}", style="dim")
    if event.last_error:
        yield Text(f"delivery to Airflow: {event.last_error}", style="yellow")
    if event.duplicates:
        yield Text(f"{event.duplicates} more copies of it came, and started nothing", style="dim")


def _came(story: Story) -> Iterator[Text]:
    run, version = story.run, story.version
    assert run is not None
    took = f", {words.length(run.ended - run.started)}" if run.started and run.ended else ""
    yield Text(f"run {run.id}: {run.state}{took}")
    yield Text(run.url, style="dim", no_wrap=True)
    for step in run.steps:
        if step.summary or step.state not in {"success", "none"}:
            yield Text(words.step(step), style="red" if step.state == "failed" else "")
    if version is not None:
        yield from _version(version)


def _version(version: Version) -> Iterator[Text]:
    data = f", on data version {version.data_version}" if version.data_version else ""
    reason = f": {version.verdict_reason}" if version.verdict_reason else ""
    yield Text(f"version {version.number}{data}: {version.verdict.replace('_', ' ')}{reason}", style="bold")
    for line in words.gates(version):
        yield Text(line, style="red" if line.startswith("FAILS") else "green")


def _brief(decision: Decision) -> str:
    reason = decision.reason if decision.kind == "alert" else decision.summary
    cut = reason if len(reason) <= MOST_REASON else reason[: MOST_REASON - 3] + "..."
    what = decision.alert or decision.kind
    return f"{decision.id:>4}  {words.when(decision.received)}  {what}: {decision.decision} - {cut}"
