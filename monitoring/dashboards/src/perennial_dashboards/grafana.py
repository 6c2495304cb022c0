"""Panels to Grafana's JSON, with the types of the Grafana Foundation SDK: what Grafana would not understand does not pass mypy.

The JSON is that of Grafana 10.1; later versions read it and bring it to their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common as parts
from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.statushistory import Panel as StatusHistory
from grafana_foundation_sdk.builders.table import Panel as GrafanaTable
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from perennial_dashboards.panels import (
    RED,
    Cells,
    Column,
    Dashboard,
    Lines,
    Mark,
    Number,
    Panel,
    Query,
    States,
    Steps,
    Table,
    Variable,
)

TAG = "perennial"
RUNBOOKS = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
EVERYTHING = ".*"
"""The value of a variable of which all values are chosen: those without the label, too."""
CELLS = 100
"""In a row: Grafana shows an error instead of cells where they are too many for the screen."""
Builder = Timeseries | Stat | StatusHistory | GrafanaTable


def rendered(board: Dashboard) -> str:
    """The file that Grafana reads."""
    return json.dumps(_board(board), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _board(board: Dashboard) -> dashboard.Dashboard:
    made = (
        boards.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .time(board.since, "now")
        .timezone("browser")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(boards.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .links([_others(), _runbooks()])
    )
    for variable in board.variables:
        made.with_variable(_variable(variable))
    for mark in board.marks:
        made.annotation(_Annotation(mark))
    number = 0
    for row in board.rows:
        number += 1
        made.with_row(boards.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(_panel(panel).id(number))
    return made.build()


# -- what surrounds the panels --


def _others() -> boards.DashboardLink:
    kind = dashboard.DashboardLinkType.DASHBOARDS
    return boards.DashboardLink("Perennial").type(kind).tags([TAG]).include_vars(True).keep_time(True)


def _runbooks() -> boards.DashboardLink:
    return _link("Runbooks", RUNBOOKS, "What to do about each alert")


def _link(title: str, url: str, tooltip: str) -> boards.DashboardLink:
    kind = dashboard.DashboardLinkType.LINK
    return boards.DashboardLink(title).type(kind).url(url).tooltip(tooltip).icon("doc").target_blank(True)


def _variable(variable: Variable) -> boards.QueryVariable:
    made = (
        boards.QueryVariable(variable.name)
        .label(variable.label)
        .query(variable.values)
        .datasource(SOURCE)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )
    if variable.many:
        everything = dashboard.VariableOption(selected=True, text="All", value="$__all")
        made.multi(True).include_all(True).all_value(EVERYTHING).current(everything)
    return made


class _Annotation(boards.AnnotationQuery):
    """Adds what the datasource of Prometheus reads and the SDK's type does not have."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self._internal = _AnnotationQuery(mark)


class _AnnotationQuery(dashboard.AnnotationQuery):
    def __init__(self, mark: Mark) -> None:
        super().__init__(mark.name, SOURCE, icon_color=mark.colour, expr=mark.query.drawn)
        self._mark = mark

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {"titleFormat": self._mark.title, "textFormat": self._mark.text, "step": "15s"}


# -- panels --


def _panel(panel: Panel) -> Builder:
    made = _kind(panel)
    made.title(panel.title).description(panel.description).datasource(SOURCE).span(panel.width).height(panel.height)
    made.unit(panel.unit).thresholds(_thresholds(panel.steps)).mappings(_mappings(panel.states))
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    if panel.interval:
        made.interval(panel.interval)
    if panel.runbook:
        url = f"{RUNBOOKS}/{panel.runbook}.md"
        made.links([_link(f"Runbook of {panel.runbook}", url, "What to do when it fires")])
    table = isinstance(panel, Table)
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        made.with_target(_target(letter, query, now=table or isinstance(panel, Number), table=table))
    return made


def _target(letter: str, query: Query, *, now: bool, table: bool) -> Dataquery:
    made = Dataquery().ref_id(letter).expr(query.drawn).datasource(SOURCE)
    made = made.instant() if now else made.range()
    made.format(PromQueryFormat.TABLE if table else PromQueryFormat.TIME_SERIES)
    return made.legend_format(query.legend or "__auto")


def _kind(panel: Panel) -> Builder:
    if isinstance(panel, Lines):
        return _lines(panel)
    if isinstance(panel, Number):
        return _number(panel)
    if isinstance(panel, Cells):
        return _cells(panel)
    if isinstance(panel, Table):
        return _table(panel)
    raise TypeError(f"{type(panel).__name__} is no kind of panel")


def _lines(panel: Lines) -> Timeseries:
    made = (
        Timeseries()
        .legend(_legend(["lastNotNull", "max"]))
        .tooltip(_tooltip())
        .line_width(1)
        .show_points(common.VisibilityMode.AUTO if not panel.bars else common.VisibilityMode.NEVER)
        .fill_opacity(60 if panel.bars else 25 if panel.stacked else 0)
        .color_scheme(_colours(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .draw_style(common.GraphDrawStyle.BARS if panel.bars else common.GraphDrawStyle.LINE)
    )
    if panel.stacked:
        made.stacking(parts.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.low is not None:
        made.axis_soft_min(panel.low)
    if panel.high is not None:
        made.axis_soft_max(panel.high)
    if len(panel.steps) > 1:
        style = common.GraphTresholdsStyleMode.DASHED
        made.thresholds_style(parts.GraphThresholdsStyleConfig().mode(style))
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        if query.limit:
            made.override_by_query(letter, _limit())
    return made


def _limit() -> list[dashboard.DynamicConfigValue]:
    return _properties(
        {
            "color": {"mode": "fixed", "fixedColor": RED},
            "custom.lineStyle": {"fill": "dash", "dash": [8, 6]},
            "custom.fillOpacity": 0,
            "custom.drawStyle": "line",
            "custom.stacking": {"mode": "none"},
            "custom.showPoints": "never",
        }
    )


def _number(panel: Number) -> Stat:
    return (
        Stat()
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .text_mode(common.BigValueTextMode.NAME if panel.named else common.BigValueTextMode.AUTO)
        .reduce_options(parts.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value(panel.no_value)
    )


def _cells(panel: Cells) -> StatusHistory:
    return (
        StatusHistory()
        .legend(parts.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM))
        .tooltip(_tooltip())
        .max_data_points(CELLS)
        .row_height(0.9)
        .col_width(1)
        .fill_opacity(90)
        .line_width(0)
        .color_scheme(_colours(dashboard.FieldColorModeId.THRESHOLDS))
        .show_value(common.VisibilityMode.AUTO if panel.show_value else common.VisibilityMode.NEVER)
    )


def _table(panel: Table) -> GrafanaTable:
    """Instant queries, of which each gives one column; rows are joined by a label."""
    made = GrafanaTable().cell_height(common.TableCellHeight.SM).transformations(_transformations(panel))
    sort = next((column.title for column in panel.columns if column.label == panel.by), "")
    by = parts.TableSortByFieldState().display_name(panel.sort or sort).desc(bool(panel.sort))
    made.sort_by([by])
    for column in panel.columns:
        made.override_by_name(column.title, _cell(column, panel.unit))
    return made


def _transformations(panel: Table) -> list[dashboard.DataTransformerConfig]:
    single = len(panel.queries) == 1  # Grafana calls the value of a single query "Value", without its letter
    letters = iter(["Value"] if single else [f"Value #{letter}" for letter in ascii_uppercase])
    names = {column.label or next(letters): column for column in panel.columns}
    keep = "|".join([panel.by, *(name for name in names if name != panel.by)])
    join = [] if single else [("joinByField", {"byField": panel.by, "mode": "outer"})]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("filterFieldsByName", {"include": {"pattern": f"^({keep})$"}}),
        *join,
        (
            "organize",
            {
                "indexByName": {name: place for place, name in enumerate(names)},
                "renameByName": {name: column.title for name, column in names.items()},
                "excludeByName": {},
            },
        ),
    ]
    return [dashboard.DataTransformerConfig(id_val=name, options=options) for name, options in steps]


def _cell(column: Column, panel_unit: str) -> list[dashboard.DynamicConfigValue]:
    found: dict[str, object] = {} if column.unit == panel_unit else {"unit": column.unit}
    if len(column.steps) > 1:
        found["thresholds"] = _thresholds(column.steps).build()
    if len(column.steps) > 1 or column.states:
        found["custom.cellOptions"] = {"type": "color-text"}
    if column.states:
        found["mappings"] = _mappings(column.states)
    if column.decimals is not None:
        found["decimals"] = column.decimals
    if column.link is not None:
        title, url = column.link
        found["links"] = [{"title": title, "url": url}]
    return _properties(found)


# -- small things --


def _properties(values: dict[str, object]) -> list[dashboard.DynamicConfigValue]:
    return [dashboard.DynamicConfigValue(id_val=name, value=value) for name, value in values.items()]


def _thresholds(steps: Steps) -> boards.ThresholdsConfig:
    made = [dashboard.Threshold(value=value, color=colour) for value, colour in steps]
    return boards.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def _mappings(states: States) -> list[dashboard.ValueMapping]:
    if not states:
        return []
    results = {
        str(value): dashboard.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, text, colour) in enumerate(states)
    }
    return [dashboard.ValueMap(options=results)]


def _colours(mode: dashboard.FieldColorModeId) -> boards.FieldColor:
    return boards.FieldColor().mode(mode)


def _legend(figures: Iterable[str]) -> parts.VizLegendOptions:
    made = parts.VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.TABLE)
    return made.placement(common.LegendPlacement.BOTTOM).calcs(list(figures))


def _tooltip() -> parts.VizTooltipOptions:
    return parts.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
