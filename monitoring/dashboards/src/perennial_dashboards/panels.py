"""What a dashboard is made of. Plain data: `grafana` turns it into JSON, and tests ask a Prometheus its queries."""

from __future__ import annotations

from dataclasses import dataclass, field

Steps = tuple[tuple[float | None, str], ...]
"""From which value on a figure has which colour; the first begins at None, below everything."""
States = tuple[tuple[int, str, str], ...]
"""What a value means: the value, its text, its colour."""

GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"
PLAIN: Steps = ((None, GREY),)
ANY_IS_BAD: Steps = ((None, GREEN), (1, RED))
DRIFT: Steps = ((None, GREEN), (0.7, ORANGE), (1.0, RED))
"""Of the share of its threshold that drift has reached."""
ERRORS: Steps = ((None, GREEN), (0.001, ORANGE), (0.01, RED))
"""Of the share of requests that failed."""
UP: States = ((0, "down", RED), (1, "up", GREEN))


@dataclass(frozen=True)
class Query:
    """One expression of a panel."""

    expr: str
    """PromQL; may name the dashboard's variables, and Grafana's `$__rate_interval`, `$__interval` and `$__range`."""
    legend: str = ""
    """What the series are called, with labels in braces: `{{version}}`."""
    limit: bool = False
    """Drawn as a dashed red line: what the other series must not cross."""
    zero: bool = False
    """No series means 0, which is then drawn."""
    quiet: str = ""
    """Why a platform that is well may have no data for it; empty: it always has."""

    @property
    def drawn(self) -> str:
        """The expression that Grafana asks."""
        return f"({self.expr}) or vector(0)" if self.zero else self.expr


@dataclass(frozen=True)
class Panel:
    """What all panels have in common. Widths are in 24ths of the screen; heights in Grafana's rows of about 30 pixels."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...] = ()
    width: int = 12
    height: int = 8
    steps: Steps = PLAIN
    states: States = ()
    decimals: int | None = None
    interval: str = ""
    """The least time between two points, where Grafana's own choice is too short for what is counted."""
    runbook: str = ""
    """An alert, whose runbook is linked."""


@dataclass(frozen=True)
class Lines(Panel):
    """Series over time."""

    stacked: bool = False
    bars: bool = False
    """For counts of events: bars instead of lines."""
    low: float | None = 0
    high: float | None = None


@dataclass(frozen=True)
class Number(Panel):
    """One figure, or a few, large."""

    width: int = 4
    height: int = 4
    named: bool = False
    """Shows the legend in place of the value: for what is told by a label."""
    no_value: str = "-"


@dataclass(frozen=True)
class Cells(Panel):
    """One row of cells per series, coloured by `steps` or `states`: for many series at a glance."""

    show_value: bool = False


@dataclass(frozen=True)
class Column:
    """One column of a table: a label of the rows, or the value of a query."""

    title: str
    query: Query | None = None
    label: str = ""
    """The label that is shown, if it is no value."""
    unit: str = "none"
    steps: Steps = PLAIN
    states: States = ()
    decimals: int | None = None
    link: tuple[str, str] | None = None
    """Title and address behind each cell; `${__value.text}` is the cell's text."""


@dataclass(frozen=True)
class Table(Panel):
    """What is so now, one row per value of the label `by`; its queries are those of its columns."""

    columns: tuple[Column, ...] = ()
    by: str = "pipeline"
    sort: str = ""
    """Title of the column that sorts, the largest first; empty: by `by`."""
    width: int = 24
    queries: tuple[Query, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = tuple(column.query for column in self.columns if column.query is not None)
        object.__setattr__(self, "queries", found)


@dataclass(frozen=True)
class Row:
    """Panels under one heading, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Mark:
    """Events that are drawn over every panel."""

    name: str
    query: Query
    title: str
    text: str
    colour: str


@dataclass(frozen=True)
class Variable:
    """What the reader chooses at the top."""

    name: str
    label: str
    values: str
    """PromQL of Grafana's `label_values()`."""
    many: bool = False
    """Several, or all of them."""


@dataclass(frozen=True)
class Dashboard:
    """One page. The datasource is a variable of each, and is not said again."""

    uid: str
    """Stable: part of its address."""
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    marks: tuple[Mark, ...] = ()
    since: str = "now-6h"

    @property
    def file(self) -> str:
        """Its name as a file."""
        return f"{self.uid.removeprefix('perennial-')}.json"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)
