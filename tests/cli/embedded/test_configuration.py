"""What `up` writes for the upstream programs, judged by these programs themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from perennial_cli.embedded import mlflow, prometheus
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.parts import platform_parts
from perennial_cli.embedded.ports import Ports
from perennial_cli.embedded.secrets import ensure_secrets
from perennial_spec.errors import PlatformError

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Home:
    home = Home(tmp_path / "state")
    home.prepare()
    return home


def test_alertmanager_accepts_its_configuration_and_calls_the_controller_with_the_token(folder: Home) -> None:
    token = ensure_secrets(folder).token_file
    prometheus.write_configuration(folder, PROJECT, Ports(controller=4711), token)
    file = folder.path / "alertmanager" / "alertmanager.yml"
    subprocess.run(["amtool", "check-config", str(file)], check=True, capture_output=True, timeout=60)
    settings = yaml.safe_load(file.read_text())
    hook = settings["receivers"][0]["webhook_configs"][0]
    assert hook["url"] == "http://127.0.0.1:4711/api/v1/alerts"
    assert hook["http_config"]["authorization"]["credentials_file"] == str(token)
    assert hook["send_resolved"] is True
    assert settings["route"]["group_by"] == ["pipeline", "alertname"]
    assert settings["route"]["group_wait"] == "0s"


def test_prometheus_accepts_its_configuration_with_the_projects_rules(folder: Home) -> None:
    prometheus.write_configuration(folder, PROJECT, Ports(), ensure_secrets(folder).token_file)
    file = folder.path / "prometheus" / "prometheus.yml"
    subprocess.run(["promtool", "check", "config", str(file)], check=True, capture_output=True, timeout=60)


def test_prometheus_scrapes_each_of_our_parts_and_tells_alertmanager() -> None:
    settings = json.loads(json.dumps(prometheus.configuration(PROJECT, Ports())))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in settings["scrape_configs"]}
    assert targets == {
        "perennial-server": ["127.0.0.1:8800"],
        "perennial-controller": ["127.0.0.1:8801"],
        "perennial-quality": ["127.0.0.1:8802"],
        "perennial-prometheus": ["127.0.0.1:9090"],
        "perennial-alertmanager": ["127.0.0.1:9093"],
    }
    assert settings["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:9093"]


def test_only_the_controller_is_told_where_the_ledger_is(folder: Home) -> None:
    parts = platform_parts(folder, PROJECT, Ports(), ensure_secrets(folder))
    told = {part.name for part in parts if part.environment.get("PERENNIAL_DATABASE_URL", "").endswith("/perennial")}
    assert told == {"controller"}


def test_the_server_follows_a_route_within_about_a_second_unless_told_otherwise(
    folder: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> list[str | None]:
        parts = platform_parts(folder, PROJECT, Ports(), ensure_secrets(folder))
        return [part.environment.get("PERENNIAL_SERVING_POLL_SECONDS") for part in parts if part.name == "server"]

    monkeypatch.delenv("PERENNIAL_SERVING_POLL_SECONDS", raising=False)
    assert told() == ["1"]
    monkeypatch.setenv("PERENNIAL_SERVING_POLL_SECONDS", "30")
    assert told() == ["30"]


def test_rules_are_read_without_their_tests(tmp_path: Path) -> None:
    rules = tmp_path / "monitoring" / "rules"
    rules.mkdir(parents=True)
    for name in ("drift.yml", "drift_test.yml", "readme.md"):
        (rules / name).touch()
    assert [file.name for file in prometheus.rule_files(tmp_path)] == ["drift.yml"]


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("${nobody}", "cannot be filled in: 'nobody'")]
)
def test_a_broken_template_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        file = tmp_path / "monitoring" / "alertmanager" / "alertmanager.yml.template"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    with pytest.raises(PlatformError, match=message) as caught:
        prometheus.alertmanager_configuration(tmp_path, Ports(), tmp_path / "token")
    assert "alertmanager.yml.template" in caught.value.where


def test_a_missing_program_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match="prometheus is not installed") as caught:
        prometheus.program("prometheus")
    assert "install" in caught.value.next
    assert "prometheus.io/download" in caught.value.next


def test_alertmanager_is_found_under_debians_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "prometheus-alertmanager"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prometheus.program("alertmanager") == str(program)
    assert shutil.which("alertmanager") is None


def test_mlflow_reads_the_variables_that_it_is_given(folder: Home) -> None:
    from mlflow.server import constants

    given = mlflow.part(folder, Ports(), ensure_secrets(folder)).environment
    known = {
        constants.BACKEND_STORE_URI_ENV_VAR,
        constants.ARTIFACT_ROOT_ENV_VAR,
        constants.ARTIFACTS_DESTINATION_ENV_VAR,
        constants.SERVE_ARTIFACTS_ENV_VAR,
    }
    assert known <= set(given)
