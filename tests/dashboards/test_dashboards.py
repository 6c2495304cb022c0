"""The dashboards without a platform: what each panel must have, that its queries are PromQL, and that the files are those of the code."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from dashboard_queries import every_query, filled

from perennial_dashboards.grafana import rendered
from perennial_dashboards.panels import Cells, Dashboard, Lines, Panel, Table
from perennial_dashboards.render import BOARDS, render
from perennial_spec import names

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "monitoring" / "dashboards"
RUNBOOKS = ROOT / "monitoring" / "runbooks"
VARIABLES = {"pipeline": "flight-delays", "feature": "sun_elevation_degrees"}
OTHERS = re.compile(r"\b(?:ALERTS|up|(?:process|prometheus|alertmanager|scrape)_\w+)\b")
"""What Prometheus, Alertmanager and every client library export of themselves."""

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


def panels() -> list[tuple[Dashboard, Panel]]:
    return [(board, panel) for board in BOARDS for panel in board.panels]


def recorded() -> set[str]:
    files = (ROOT / "monitoring" / "rules").glob("*.yml")
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


# -- the files --


@each_board
def test_the_file_is_what_the_code_says(board: Dashboard) -> None:
    assert (FOLDER / board.file).read_text() == rendered(board), "run: make render"


def test_there_is_no_file_that_the_code_does_not_write(tmp_path: Path) -> None:
    render(tmp_path)
    assert {file.name for file in FOLDER.glob("*.json")} == {file.name for file in tmp_path.iterdir()}


@each_board
def test_panels_have_places_and_numbers_of_their_own(board: Dashboard) -> None:
    found = json.loads(rendered(board))["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells


@each_board
def test_every_datasource_is_the_one_that_the_reader_chose(board: Dashboard) -> None:
    found = re.findall(r'"type": "prometheus",\s+"uid": "([^"]+)"', rendered(board))
    assert set(found) == {"${datasource}"}


def test_addresses_stay_and_links_between_dashboards_lead_to_one_of_them() -> None:
    uids = {board.uid for board in BOARDS}
    assert uids == {"perennial-overview", "perennial-pipeline", "perennial-loop", "perennial-platform"}
    links = {uid for board in BOARDS for uid in re.findall(r"/d/([\w-]+)", rendered(board))}
    assert links
    assert links <= uids


# -- the panels --


@pytest.mark.parametrize(("board", "panel"), panels(), ids=lambda each: getattr(each, "title", ""))
def test_a_panel_says_what_it_shows(board: Dashboard, panel: Panel) -> None:
    assert panel.unit
    assert panel.queries
    assert len(panel.description) > 20
    assert panel.description.endswith(".")
    if isinstance(panel, Lines | Cells):
        assert all(query.legend for query in panel.queries), "a legend that nobody can read"


def test_titles_name_one_panel_each() -> None:
    for board in BOARDS:
        titles = [(row.title, panel.title) for row in board.rows for panel in row.panels]
        assert len(set(titles)) == len(titles)


def test_a_runbook_that_is_linked_is_there() -> None:
    linked = {panel.runbook for _, panel in panels() if panel.runbook}
    assert {f"{alert}.md" for alert in linked} <= {file.name for file in RUNBOOKS.glob("*.md")}


def test_a_table_is_sorted_by_a_column_that_it_has() -> None:
    for _, panel in panels():
        if isinstance(panel, Table):
            titles = [column.title for column in panel.columns]
            assert len(set(titles)) == len(titles)
            assert panel.by in {column.label for column in panel.columns}
            assert not panel.sort or panel.sort in titles


THRESHOLDS = {
    names.DRIFT_THRESHOLD,
    names.DRIFT_MIN_ROWS,
    names.QUALITY_MIN,
    names.QUALITY_MAX,
    names.QUALITY_MIN_LABELS,
    names.QUALITY_MIN_LABELLED,
    names.LABEL_ARRIVES_AFTER,
    names.ATTRIBUTION_SHIFT_LIMIT,
    names.ERROR_RATE_LIMIT,
    names.LATENCY_LIMIT,
    names.MODEL_REVIEW_AFTER,
    names.MODEL_RETIRE_AFTER,
    names.DATA_FRESHNESS_LIMIT,
}


def test_every_threshold_of_a_spec_is_drawn_for_one_pipeline() -> None:
    drawn = " ".join(
        each.query.expr for each in every_query() if each.board.uid.endswith("-pipeline") and each.query.limit
    )
    assert [name for name in sorted(THRESHOLDS) if name not in drawn] == []


def test_few_queries_may_be_without_data_and_each_says_why() -> None:
    quiet = [each for each in every_query() if each.query.quiet]
    assert len(quiet) <= len(list(every_query())) / 4
    assert all(each.query.quiet.endswith(".") for each in quiet)


# -- the queries --


def test_the_queries_are_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"q{place}", "expr": filled(each.query.drawn, VARIABLES)} for place, each in enumerate(every_query())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_queries_use_only_metrics_that_there_are() -> None:
    known = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("perennial_")}
    known |= recorded()
    for each in every_query():
        ours = re.findall(r"\bperennial[_:][\w:]+", each.query.expr)
        assert {name.removesuffix("_bucket") for name in ours} <= known, str(each)
        assert ours or OTHERS.search(each.query.expr), str(each)


def test_a_variable_that_a_query_names_can_be_chosen() -> None:
    for each in every_query():
        used = set(re.findall(r"\$(\w+)", each.query.expr + each.place)) - {"__rate_interval", "__interval", "__range"}
        assert used <= {variable.name for variable in each.board.variables}, str(each)


def test_several_pipelines_are_matched_as_an_expression_and_one_by_its_name() -> None:
    for each in every_query():
        many = any(variable.many for variable in each.board.variables)
        wrong = 'pipeline="$pipeline"' if many else 'pipeline=~"$pipeline"'
        assert wrong not in each.query.expr, str(each)
