"""The other alerts: quality, servers, traffic and data; and what all alerts have in common."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from perennial_spec import names

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules"
RUNBOOKS = ROOT / "monitoring" / "runbooks"
BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"
PARTS = ["## Meaning", "## Impact", "## Diagnosis", "## What Perennial does by itself", "## Mitigation"]


def groups() -> dict[str, dict]:
    """By name, which no two files share."""
    found = [group for file in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
    assert len({group["name"] for group in found}) == len(found)
    return {group["name"]: group for group in found}


def rules() -> list[dict]:
    return [rule for group in groups().values() for rule in group["rules"]]


def alerts() -> list[dict]:
    return [rule for rule in rules() if "alert" in rule]


def alertnames(world, step: int | None = None) -> list[str]:
    return [labels["alertname"] for labels in world.firing(step)]


# -- what all have in common --


def test_promtool_finds_nothing_wrong() -> None:
    files = sorted(map(str, RULES.glob("*.yml")))
    done = subprocess.run(
        ["promtool", "check", "rules", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {rule["alert"] for rule in alerts()} == {file.stem for file in RUNBOOKS.glob("*.md")}
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"{BASE}/{rule['alert']}.md"


def test_the_alerts_are_those_that_the_parts_know_by_name() -> None:
    known = {value for name, value in vars(names).items() if name.startswith("ALERT_")}
    assert {rule["alert"] for rule in alerts()} == known


@pytest.mark.parametrize("file", sorted(RUNBOOKS.glob("*.md")), ids=lambda file: file.stem)
def test_a_runbook_says_what_it_must_and_its_queries_are_valid(file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    assert text.startswith(f"# {file.stem}\n")
    found = [line for line in text.splitlines() if line.startswith("## ")]
    assert found == PARTS
    queries = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    assert queries
    checked = {"groups": [{"name": "g", "rules": [{"record": f"q{n}", "expr": q} for n, q in enumerate(queries)]}]}
    (tmp_path / "queries.yml").write_text(yaml.safe_dump(checked))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "queries.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    known = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("perennial_")}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for metric in re.findall(r"\bperennial[_:][\w:]+", "\n".join(queries)):
        assert metric.removesuffix("_bucket") in known | recorded, metric


def test_runbooks_use_only_commands_that_there_are() -> None:
    from perennial_cli.commands import COMMANDS

    for file in RUNBOOKS.glob("*.md"):
        used = set(re.findall(r"`perennial ([a-z]+)", file.read_text()))
        assert used <= set(COMMANDS), f"{file.name}: {used - set(COMMANDS)}"


def test_every_alert_has_the_labels_and_annotations_of_the_contract() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert "action" in rule["labels"] or "group_left (action)" in rule["expr"], rule["alert"]
        assert {"summary", "description", "runbook_url"} <= set(rule["annotations"])


def test_the_rules_use_only_metrics_that_a_part_exports() -> None:
    known = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("perennial_")}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        used = set(re.findall(r"\bperennial[_:][\w:]+", rule["expr"]))
        assert used <= known | recorded, used - known - recorded


def test_the_tests_know_in_which_order_each_group_is_evaluated(world) -> None:
    assert set(groups()) == set(world.order)


def test_the_windows_are_judged_alike() -> None:
    found = groups()
    texts = {
        w: yaml.safe_dump(found[f"perennial-drift-{w}"]["rules"], width=10_000)
        .replace(w, "W")
        .replace(f"<= {seconds}", "<= S")
        for w, seconds in {"5m": 300, "1h": 3600, "1d": 86400}.items()
    }
    assert texts["5m"] == texts["1h"] == texts["1d"]


# -- quality --


@pytest.fixture
def judged(world):
    """A champion whose roc_auc must be 0.68 on at least 500 labels."""
    world.server().pipeline().champion()
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc", job="controller")
    return world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo", job="controller")


def measured(world, value: float, labels: int = 800, *, version: str = "1", metric: str = "roc_auc"):
    by = {"pipeline": "demo", "version": version, "job": "quality", "instance": "q:1"}
    return world.set(names.QUALITY, value, **by, metric=metric).set(names.QUALITY_LABELS, labels, **by)


def test_low_quality_fires_with_its_figures(judged) -> None:
    measured(judged, 0.61)
    judged.check_alert(
        "PerennialQualityLow",
        40,
        {"pipeline": "demo", "version": "1", "metric": "roc_auc", "severity": "warning", "action": "retrain"},
        {
            "summary": "demo: live roc_auc 0.610 is beyond its limit 0.680",
            "description": "Version 1 of demo has roc_auc 0.610 on 800 labels; action: retrain.",
            "runbook_url": f"{BASE}/PerennialQualityLow.md",
        },
    )


@pytest.mark.parametrize(
    ("value", "labels", "version"),
    [(0.69, 800, "1"), (0.61, 499, "1"), (0.61, 800, "2")],
    ids=["good", "few labels", "not champion"],
)
def test_quality_is_silent(judged, value: float, labels: int, version: str) -> None:
    measured(judged, value, labels, version=version)
    assert alertnames(judged, 40) == []


def test_a_metric_that_must_stay_low_fires_when_it_is_high(judged) -> None:
    judged.set(names.QUALITY_MAX, 0.5, pipeline="demo", metric="log_loss", job="controller")
    measured(judged, 0.7).set(
        names.QUALITY, 0.6, pipeline="demo", version="1", metric="log_loss", job="quality", instance="q:1"
    )
    assert [labels["metric"] for labels in judged.firing(40)] == ["log_loss"]


def test_quality_asks_for_a_retraining_only_when_the_spec_allows_it(world) -> None:
    world.server().pipeline(on=["drift"]).champion()
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc")
    measured(world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo"), 0.5)
    assert [labels["action"] for labels in world.firing(40)] == ["none"]


# -- servers --


def test_one_replica_that_is_down_is_named(world) -> None:
    world.pipeline().server("s:1").server("s:2", up=[1] * 20 + [0] * 61)
    assert alertnames(world, 21) == []
    [found] = world.firing(80)
    assert found == {
        "alertname": "PerennialModelServerDown",
        "instance": "s:2",
        "job": "perennial-server",
        "severity": "critical",
        "action": "none",
    }


def test_no_server_at_all_is_one_alert(world) -> None:
    world.pipeline().server("s:1", up=[1] * 20 + [0] * 61)
    [found] = world.firing(60)
    assert (found["alertname"], found.get("instance")) == ("PerennialModelServerDown", None)


def test_other_jobs_that_are_down_are_not_model_servers(world) -> None:
    world.pipeline().server().set("up", 0, job="somebody-elses", instance="x:1")
    assert alertnames(world) == []


def test_a_restart_of_a_few_seconds_is_silent(world) -> None:
    world.pipeline().server("s:1", up=[1] * 20 + [0] * 2 + [1] * 59)
    assert all(
        not found
        for found in world.values({str(s): ('ALERTS{alertstate="firing"}', s) for s in range(19, 30)}).values()
    )


# -- traffic --


def test_a_champion_that_nobody_asks_is_told(world, deciles) -> None:
    world.steps = 161
    world.server().pipeline().champion().traffic(deciles, rows=0)
    assert alertnames(world, 59) == []
    [found] = world.firing(100)
    assert (found["alertname"], found["pipeline"], found["action"]) == ("PerennialNoPredictions", "demo", "none")


@pytest.mark.parametrize("rows", [1, 100])
def test_traffic_is_silent(world, deciles, rows: int) -> None:
    world.steps = 161
    world.server().pipeline(min_rows=10**6).champion().traffic(deciles, rows=rows)
    assert alertnames(world, 160) == []


def test_a_champion_of_the_last_minutes_is_not_missed_yet(world, deciles) -> None:
    world.steps = 161
    world.server().pipeline().champion(start=110).traffic(deciles, rows=0, start=110)
    assert alertnames(world, 160) == []


def test_a_pipeline_whose_champion_has_just_changed_has_traffic(world, deciles) -> None:
    world.steps = 161
    world.server().pipeline(min_rows=10**6).champion("1", end=150).champion("2", start=150)
    world.traffic(deciles, end=150).traffic(deciles, version="2", start=150)
    assert alertnames(world, 155) == []


def test_a_server_that_is_down_is_no_lack_of_traffic(world, deciles) -> None:
    world.steps = 161
    world.server(up=[1] * 100 + [0] * 61).champion(end=100).traffic(deciles, rows=0, end=100)
    assert "PerennialNoPredictions" not in alertnames(world, 160)


# -- data --


@pytest.mark.parametrize(("on", "action"), [(["freshness"], "retrain"), (["drift"], "none")])
def test_stale_data_fires_and_retrains_when_the_spec_allows_it(world, on: list[str], action: str) -> None:
    world.server().pipeline(on=on)
    world.set(names.DATA_FRESHNESS_LIMIT, 600, pipeline="demo", job="controller")
    world.set(names.DATA_LAST_TIMESTAMP, 0, pipeline="demo", job="controller")
    assert alertnames(world, 39) == []
    world.check_alert(
        "PerennialDataStale",
        60,
        {"pipeline": "demo", "severity": "warning", "action": action},
        {
            "summary": "demo: the newest data is 15m 0s old",
            "description": f"The newest row of demo is 15m 0s old, data.freshness allows 10m 0s; action: {action}.",
            "runbook_url": f"{BASE}/PerennialDataStale.md",
        },
    )


def test_data_without_a_limit_is_never_stale(world) -> None:
    world.server().pipeline().set(names.DATA_LAST_TIMESTAMP, -(10**9), pipeline="demo", job="controller")
    assert alertnames(world) == []


# -- the watchers themselves --


@pytest.fixture
def watched(world):
    """A world in which the controller and the quality exporter are down from step 20 on, or not, as a test says."""

    def make(controller: list[int], quality: list[int]):
        world.server().pipeline().set("up", controller, job="perennial-controller", instance="c:1")
        return world.set("up", quality, job="perennial-quality", instance="q:1")

    return make


UP, LOST, AWAY = [1] * 81, [1] * 20 + [0] * 61, [1] * 20 + [0] * 20 + [1] * 41


@pytest.mark.parametrize(("part", "instance"), [("controller", "c:1"), ("quality", "q:1")])
def test_a_watcher_that_is_down_is_named_after_a_minute(watched, part: str, instance: str) -> None:
    world = watched(*((LOST, UP) if part == "controller" else (UP, LOST)))
    if part == "controller":  # its thresholds go with it: still one alert, which names it
        world.unscraped("c:1", 20, 81)
    assert alertnames(world, 23) == []
    world.check_alert(
        "PerennialMonitoringDown",
        24,
        {"instance": instance, "job": f"perennial-{part}", "severity": "critical", "action": "none"},
        {
            "summary": f"perennial-{part} is down: drift, quality or stale data may go unnoticed",
            "description": f"Prometheus cannot scrape {instance} of job perennial-{part}. Without the controller no alert on drift, "
            "quality or data can fire, and none starts a retraining; without the quality exporter PerennialQualityLow cannot fire.",
            "runbook_url": f"{BASE}/PerennialMonitoringDown.md",
        },
    )


def test_thresholds_that_nobody_exports_are_told(world) -> None:
    world.server()
    world.check_alert(
        "PerennialMonitoringDown",
        60,
        {"severity": "critical", "action": "none"},
        {
            "summary": "drift, quality or stale data may go unnoticed",
            "description": "Prometheus has no pipeline's thresholds, which the controller exports. Without the controller no alert on "
            "drift, quality or data can fire, and none starts a retraining; without the quality exporter PerennialQualityLow "
            "cannot fire.",
            "runbook_url": f"{BASE}/PerennialMonitoringDown.md",
        },
    )


def test_watchers_that_are_up_are_silent(watched) -> None:
    assert alertnames(watched(UP, UP)) == []


def test_a_watcher_that_restarts_within_a_minute_is_silent(watched) -> None:
    world = watched([1] * 20 + [0] * 3 + [1] * 58, UP).unscraped("c:1", 20, 23)
    found = world.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in range(19, 35)})
    assert not any(found.values())


@pytest.mark.parametrize("part", ["controller", "quality"])
def test_the_alert_resolves_when_the_watcher_is_back(watched, part: str) -> None:
    world = watched(*((AWAY, UP) if part == "controller" else (UP, AWAY)))
    found = world.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in (39, 40)})
    assert [labels["job"] for labels, _ in found["39"]] == [f"perennial-{part}"]
    assert found["40"] == []


def test_an_empty_world_has_the_alerts_of_what_is_missing_and_no_error(world) -> None:
    world.set("something_else", 1)
    assert alertnames(world) == ["PerennialModelServerDown", "PerennialMonitoringDown"]
