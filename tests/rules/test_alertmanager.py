"""Who is told: the template as it is, and with its example of receivers for people; and what is not told beside something worse."""

from __future__ import annotations

import json
import re
import shutil
import string
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from controller_neighbours import free_port, wait_for

ROOT = Path(__file__).parents[2] / "monitoring"
TEMPLATE = ROOT / "alertmanager" / "alertmanager.yml.template"
COMMENTED = re.compile(
    r"^( +)# (?=continue:|- receiver: (?:on-call|outside)|- name: (?:on-call|outside)|  +\S)", re.MULTILINE
)
"""The lines of the example; other comments begin with a word, at the beginning."""
ALERTMANAGER = shutil.which("prometheus-alertmanager") or "alertmanager"


def routed(file: Path, **labels: str) -> str:
    """The receivers of an alert, as Alertmanager's own tool says; the controller once, however many routes lead to it."""
    command = ["amtool", "config", "routes", "test", f"--config.file={file}", *(f"{k}={v}" for k, v in labels.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture
def text() -> str:
    return string.Template(TEMPLATE.read_text()).substitute(
        controller_url="http://127.0.0.1:1", token_file="/run/token"
    )


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert's rule by its name."""
    groups = [group for file in (ROOT / "rules").glob("*.yml") for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@pytest.mark.parametrize("action", ["retrain", "rollback", "none"])
@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_every_alert_goes_to_the_controller_and_nobody_else(
    tmp_path: Path, text: str, severity: str, action: str
) -> None:
    (tmp_path / "a.yml").write_text(text)
    assert routed(tmp_path / "a.yml", severity=severity, action=action, pipeline="demo") == "controller"


def test_what_fires_always_goes_to_the_controller_and_nobody_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yml").write_text(text)
    labels = {"alertname": "PerennialWatchdog", "severity": "none", "action": "none"}
    assert routed(tmp_path / "a.yml", **labels) == "controller"


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"severity": "critical", "action": "none"}, "controller,on-call"),
        ({"severity": "critical", "action": "retrain"}, "controller,on-call"),
        ({"severity": "warning", "action": "none"}, "controller"),
        ({"severity": "none", "action": "none", "alertname": "PerennialWatchdog"}, "controller,outside"),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_the_example_tells_people_of_critical_alerts_and_a_service_that_all_is_well(
    tmp_path: Path, text: str, labels: dict[str, str], receivers: str
) -> None:
    (tmp_path / "a.yml").write_text(COMMENTED.sub(r"\1", text))
    assert routed(tmp_path / "a.yml", **labels) == receivers
    on_call, outside = yaml.safe_load((tmp_path / "a.yml").read_text())["receivers"][1:]
    assert on_call["pagerduty_configs"]
    assert outside["webhook_configs"]


def test_what_asks_for_a_run_is_repeated_more_often_than_what_does_not(text: str) -> None:
    [retrain, watchdog, other] = yaml.safe_load(text)["route"]["routes"]
    assert retrain["repeat_interval"] == watchdog["repeat_interval"] == "30s"
    assert "repeat_interval" not in other


# -- inhibition --


def inhibitions() -> list[tuple[set[str], set[str]]]:
    """Names of sources and targets of each rule."""
    rules = yaml.safe_load(string.Template(TEMPLATE.read_text()).safe_substitute())["inhibit_rules"]
    return [(_named(rule["source_matchers"]), _named(rule["target_matchers"])) for rule in rules]


def _named(matchers: list[str]) -> set[str]:
    [names] = [text for text in matchers if text.startswith("alertname")]
    return set(re.findall(r"Perennial\w+", names))


def test_an_alert_is_held_back_only_by_one_as_severe_and_never_when_it_may_retrain() -> None:
    rank = {"warning": 1, "critical": 2}
    known = alerts()
    for sources, targets in inhibitions():
        for source in sources:
            assert known[source]["labels"]["severity"] in rank, source
            for target in targets:
                assert known[target]["labels"]["action"] == "none", target
                severities = [rank[known[name]["labels"]["severity"]] for name in (source, target)]
                assert severities[0] >= severities[1], f"{source} holds back {target}"


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Alertmanager with the template, whose receiver nobody listens for."""
    folder = tmp_path_factory.mktemp("alertmanager")
    config = string.Template(TEMPLATE.read_text()).substitute(
        controller_url="http://127.0.0.1:1", token_file=folder / "token"
    )
    (folder / "token").write_text("secret")
    (folder / "a.yml").write_text(config)
    url = f"http://127.0.0.1:{free_port()}"
    command = [ALERTMANAGER, f"--config.file={folder / 'a.yml'}", f"--storage.path={folder}"]
    command += [f"--web.listen-address={url.removeprefix('http://')}", "--cluster.listen-address="]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(lambda: _answers(f"{url}/-/ready"), "Alertmanager")
            yield url
        finally:
            process.kill()
            process.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture
def held_back(alertmanager: str) -> Callable[..., set[str]]:
    """Which of these alerts Alertmanager holds back while all of them fire; labels beside the name as `Name[label=value,...]`."""

    def ask(*fire: str) -> set[str]:
        now = datetime.now(UTC).isoformat()
        mark = f"{time.monotonic_ns()}"  # alerts of other tests have ended, and are there for a while
        fired = [{"labels": {**_labels(text), "test": mark}, "startsAt": now} for text in fire]
        _post(f"{alertmanager}/api/v2/alerts", fired)

        def states() -> dict[str, str] | None:
            query = f"{alertmanager}/api/v2/alerts?filter=test%3D%22{mark}%22"
            with urllib.request.urlopen(query, timeout=10) as response:
                found = {a["labels"]["alertname"]: a["status"]["state"] for a in json.load(response)}
            return found if len(found) == len(fire) and "unprocessed" not in found.values() else None

        result = wait_for(states, "Alertmanager to process the alerts", 20)
        _post(f"{alertmanager}/api/v2/alerts", [{**each, "endsAt": datetime.now(UTC).isoformat()} for each in fired])
        return {name for name, state in result.items() if state == "suppressed"}

    return ask


def _labels(text: str) -> dict[str, str]:
    name, _, rest = text.rstrip("]").partition("[")
    return {"alertname": name, **dict(pair.split("=") for pair in rest.split(",") if pair)}


def _post(url: str, body: Any) -> None:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(request, timeout=10).close()


SLOW = "PerennialLatencyHigh[pipeline=demo]"
SILENT = "PerennialNoPredictions[pipeline=demo]"
OVERDUE = "PerennialNoGoodRun[pipeline=demo]"


@pytest.mark.parametrize(
    ("fire", "held"),
    [
        (["PerennialModelServerDown", SLOW, SILENT], {"PerennialLatencyHigh", "PerennialNoPredictions"}),
        (["PerennialModelServerDown[instance=s:1,job=s]", SLOW], set()),
        (
            ["PerennialModelServerDown[instance=s:1,job=s]", "PerennialRouteNotFollowed[pipeline=demo,job=s]"],
            {"PerennialRouteNotFollowed"},
        ),
        (["PerennialMonitoringDown[job=perennial-controller]", "PerennialLedgerDown", OVERDUE],
         {"PerennialLedgerDown", "PerennialNoGoodRun"}),
        (["PerennialMonitoringDown", OVERDUE], {"PerennialNoGoodRun"}),
        (["PerennialMonitoringDown[job=perennial-quality]", OVERDUE, "PerennialLedgerDown"], {"PerennialNoGoodRun"}),
        (["PerennialMonitoringDown[job=perennial-quality]", OVERDUE], set()),
        (["PerennialLedgerDown", "PerennialAlertsNotReceived"], {"PerennialAlertsNotReceived"}),
        (["PerennialServerSaturated[pipeline=demo]", SLOW], {"PerennialLatencyHigh"}),
        (["PerennialServerSaturated[pipeline=other]", SLOW], set()),
        (["PerennialRunFailing[pipeline=demo]", OVERDUE], {"PerennialNoGoodRun"}),
        (["PerennialRunFailing[pipeline=other]", OVERDUE], set()),
        (["PerennialModelServerDown", "PerennialFeatureDrift[pipeline=demo,action=retrain]"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_follows_from_another_alert_is_held_back(
    held_back: Callable[..., set[str]], fire: list[str], held: set[str]
) -> None:
    assert held_back(*fire) == held
