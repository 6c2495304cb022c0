"""The story of a ledger's row, asked of a real Prometheus that holds known series; ledger and registry are served as they answer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from controller_neighbours import free_port, served, wait_for
from ledger_rows import NOON, decision, quiet, row
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perennial_cli.insight.gather import tell
from perennial_cli.insight.parts import parts_of, rows_since
from perennial_cli.insight.story import Story
from perennial_cli.report.gather import gather
from perennial_spec.errors import PlatformError
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.platform import Platform

LATER = NOON + timedelta(hours=2)
SPEC = {
    "apiVersion": "perennial/v1",
    "name": "flights",
    "owner": {"team": "ops", "contact": "ops@example.com"},
    "data": {
        "sources": {"flights": "f.parquet"},
        "timestamp": "at",
        "entity": "id",
        "label": {"column": "late"},
    },
    "model": {"kind": "xgboost.classifier"},
    "evaluation": {"metric": "roc_auc", "gates": [{"metric": "roc_auc", "min": 0.6}]},
    "monitoring": {"drift": {"window": "1h"}, "quality": {"metric": "roc_auc", "min": 0.68, "window": "7d"}},
}
OF = 'pipeline="flights",version="1"'


def samples() -> Iterator[str]:
    """OpenMetrics: from an hour before noon to an hour after, once a minute; at noon temp begins to move."""
    series: dict[str, Any] = {
        'perennial_drift_psi_threshold{pipeline="flights"}': lambda m: 0.2,
        'perennial_drift_window{pipeline="flights",window="1h"}': lambda m: 1,
        f"perennial_champion{{{OF}}}": lambda m: 1,
        f'perennial:feature_psi:over{{{OF},feature="temp",window="1h"}}': lambda m: 0.31 + m / 10 if m >= 0 else None,
        f'perennial:feature_psi:1h{{{OF},feature="temp",window="1h"}}': lambda m: max(0.05, 0.31 + m / 10),
        f'perennial:feature_psi:1h{{{OF},feature="wind",window="1h"}}': lambda m: 0.04,
        f'perennial:feature_rows:1h{{{OF},feature="temp",window="1h"}}': lambda m: 1234 + m,
        f'perennial:feature_reference_share{{{OF},feature="temp",bin="(-inf,10]"}}': lambda m: 0.5,
        f'perennial:feature_reference_share{{{OF},feature="temp",bin="(10,inf)"}}': lambda m: 0.5,
        f'perennial:feature_live_share:1h{{{OF},feature="temp",bin="(-inf,10]"}}': lambda m: 0.5 - max(0, m) / 200,
        f'perennial:feature_live_share:1h{{{OF},feature="temp",bin="(10,inf)"}}': lambda m: 0.5 + max(0, m) / 200,
        f'perennial_quality{{{OF},metric="roc_auc"}}': lambda m: 0.7 - (m + 60) / 1000,
        f'perennial_quality_lower{{{OF},metric="roc_auc"}}': lambda m: 0.6,
        f'perennial_quality_upper{{{OF},metric="roc_auc"}}': lambda m: 0.72,
        'perennial_quality_min{pipeline="flights",metric="roc_auc"}': lambda m: 0.68,
        f"perennial_quality_labels{{{OF}}}": lambda m: 2310,
        'perennial_data_last_timestamp_seconds{pipeline="flights"}': lambda m: NOON.timestamp() - 190_000,
        'perennial_data_freshness_limit_seconds{pipeline="flights"}': lambda m: 129_600,
        f"perennial_route_weight{{{OF}}}": lambda m: 1,
        f'perennial_requests_total{{{OF},code="200",protocol="oip"}}': lambda m: (m + 60) * 60,
        'ALERTS{alertname="PerennialWatchdog",alertstate="firing",severity="none"}': lambda _: 1,
        'ALERTS{alertname="PerennialModelServerDown",alertstate="firing",severity="critical"}': lambda m: (
            1 if -30 <= m < -20 else None
        ),
    }
    for name, value_at in series.items():
        for minute in range(-60, 61):
            if (value := value_at(minute)) is not None:
                yield f"{name} {value} {(NOON + timedelta(minutes=minute)).timestamp():.0f}"
    yield "# EOF"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "samples").write_text("\n".join(samples()) + "\n")
    make = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "samples"), str(folder / "data")]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    (folder / "prometheus.yml").write_text("{}")
    port = free_port()
    keep = ["--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}"]
    files = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    process = subprocess.Popen(["prometheus", *files, *keep], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _ready(url), "Prometheus")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


class Ledger:
    """Answers as the controller does, from rows with the newest first."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/v1/pipelines/flights/decisions", self._rows),
                Route("/api/v1/decisions/{id:int}", self._row),
                Route("/api/v1/pauses", lambda _: JSONResponse({"pauses": []})),
            ]
        )

    def _rows(self, request: Request) -> Response:
        before, limit = int(request.query_params.get("before", 10**9)), int(request.query_params["limit"])
        return JSONResponse({"decisions": [each for each in self.rows if each["id"] < before][:limit]})

    def _row(self, request: Request) -> Response:
        found = next((each for each in self.rows if each["id"] == request.path_params["id"]), None)
        return JSONResponse(found) if found else JSONResponse({"error": "none"}, 404)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def platform(tmp_path: Path, prometheus: str, ledger: Ledger) -> Iterator[Platform]:
    """Ledger and Prometheus answer; Airflow and the registry are away."""
    (tmp_path / "token").write_text("t")
    (tmp_path / "airflow.json").write_text(json.dumps({"username": "u", "password": "p"}))
    gone = f"http://127.0.0.1:{free_port()}"
    with served(ledger.app()) as url:
        yield Platform(
            mlflow_url=gone,
            prometheus_url=prometheus,
            airflow_url=gone,
            airflow_credentials_file=str(tmp_path / "airflow.json"),
            controller_url=url,
            token_file=str(tmp_path / "token"),
        )


def told(platform: Platform, id: int | None = None, now: datetime = LATER) -> Story:
    with parts_of(platform) as parts:
        return tell(parts, "flights", id, now)


def alert(name: str, **labels: str) -> dict[str, Any]:
    of = {"alertname": name, "pipeline": "flights", "version": "1", **labels}
    return {"alert": name, "payload": {"labels": of, "annotations": {}, "startsAt": NOON.isoformat()}}


def test_the_figures_of_drift_are_those_of_when_the_alert_fired(platform: Platform, ledger: Ledger) -> None:
    ledger.rows = [row(1)]
    drift = told(platform).figures.drift  # type: ignore[union-attr]
    assert drift is not None
    assert (drift.version, drift.threshold, drift.window) == ("1", 0.2, "1h")
    (temp,) = drift.features
    assert (temp.feature, temp.psi, temp.rows) == ("temp", 0.31, 1234)
    assert temp.peak == pytest.approx(0.31 + 1.2)  # until it resolved, 12 minutes later
    assert [(each.name, each.reference, each.live) for each in temp.bins] == [
        ("(-inf,10]", 0.5, 0.5),
        ("(10,inf)", 0.5, 0.5),
    ]


def test_the_figures_of_quality_and_freshness_too(platform: Platform, ledger: Ledger) -> None:
    ledger.rows = [row(2, **alert("PerennialDataStale")), row(1, **alert("PerennialQualityLow", metric="roc_auc"))]
    stale = told(platform, 2).figures
    assert stale is not None
    assert stale.freshness is not None
    assert (stale.freshness.age, stale.freshness.limit) == (190_000, 129_600)
    low = told(platform, 1).figures
    assert low is not None
    assert low.quality is not None
    assert low.quality.value == pytest.approx(0.64)
    assert (low.quality.low, low.quality.high) == (0.6, 0.72)
    assert (low.quality.least, low.quality.most, low.quality.labels) == (0.68, None, 2310)


def test_an_alert_older_than_what_prometheus_has_is_told_without_figures(platform: Platform, ledger: Ledger) -> None:
    ledger.rows = [row(1, -60 * 24)]
    figures = told(platform).figures
    assert figures is not None
    assert figures.gone
    assert figures.drift is None


def test_parts_that_are_away_are_named_and_the_run_is_as_the_ledger_has_it(platform: Platform, ledger: Ledger) -> None:
    ledger.rows = [row(1)]
    story = told(platform)
    assert sorted(story.away) == ["airflow", "mlflow"]
    assert story.run is not None
    assert story.run.state == "success"


def test_when_no_part_answers_that_is_an_error(platform: Platform) -> None:
    nowhere = replace(platform, controller_url=platform.mlflow_url, prometheus_url=platform.mlflow_url)
    with parts_of(nowhere) as parts, pytest.raises(PlatformError, match="no part of the platform answers"):
        tell(parts, "flights", None, LATER)


def test_a_row_that_is_not_there_or_another_pipelines_is_told(platform: Platform, ledger: Ledger) -> None:
    ledger.rows = [row(2, pipeline="trains"), row(1)]
    with pytest.raises(PlatformError, match="there is no decision 9"):
        told(platform, 9)
    with pytest.raises(PlatformError, match="about 'trains'") as error:
        told(platform, 2)
    assert error.value.next == "perennial why trains --decision 2"


def test_the_story_is_found_behind_pages_of_news_of_data(platform: Platform, ledger: Ledger) -> None:
    ledger.rows = [quiet(id, id, kind="data") for id in range(450, 1, -1)] + [row(1)]
    story = told(platform, now=NOON + timedelta(days=1))
    assert story.event is not None
    assert story.event.id == 1


def test_rows_are_read_back_to_a_time_and_no_further(platform: Platform, ledger: Ledger) -> None:
    ledger.rows = [row(id, id) for id in range(450, 0, -1)]
    with parts_of(platform) as parts:
        found = rows_since(parts.controller, "flights", NOON + timedelta(minutes=100))
    assert (found[0].id, found[-1].id) == (450, 100)


def test_the_report_has_what_prometheus_and_the_ledger_have(platform: Platform, ledger: Ledger) -> None:
    ledger.rows = [row(1)]
    spec = PipelineSpec.model_validate(SPEC)
    with parts_of(platform) as parts:
        report = gather(parts, spec, timedelta(hours=2), NOON + timedelta(hours=1))
    drift = {series.labels["feature"]: series.points for series in report.drift}
    assert set(drift) == {"temp", "wind"}
    assert max(value for _, value in drift["temp"]) == pytest.approx(0.31 + 6.0)
    assert all(len(series.points) <= 300 for series in report.drift)
    (quality,) = report.quality
    assert quality.points[-1][1] == pytest.approx(0.58)
    assert report.quality_low[0].points[-1][1] == 0.6
    answered = next(series for series in report.requests if series.labels["kind"] == "answered")
    assert answered.points[-1][1] == pytest.approx(1.0, rel=0.2)
    assert [(one.name, one.decision) for one in report.alerts] == [
        ("PerennialFeatureDrift", 1),
        ("PerennialModelServerDown", None),
    ]
    assert report.marks[0].at == decision(1).received
    assert sorted(report.away) == ["mlflow"]
