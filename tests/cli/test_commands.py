"""The commands that need no running platform, called as a person calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dags" / "pipelines").mkdir(parents=True)
    return tmp_path


def perennial(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
    return subprocess.run(
        [sys.executable, "-m", "perennial_cli", *args],
        cwd=project,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_schema_is_printed_as_json(project: Path) -> None:
    done = perennial(project, "schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["title"] == "Perennial pipeline"


def test_new_without_data_writes_a_spec_that_can_be_edited(project: Path) -> None:
    done = perennial(project, "new", "churn")
    assert done.returncode == 0, done.stderr
    assert "perennial check churn" in done.stdout
    assert (project / "dags/pipelines/churn/pipeline.yaml").read_text().startswith("# yaml-language-server")


def test_new_refuses_a_name_that_kubernetes_would_refuse(project: Path) -> None:
    done = perennial(project, "new", "My Churn")
    assert done.returncode == 2
    assert "cannot be a pipeline's name" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["run", "flihgt"],
        ["check", "flihgt"],
        ["step", "train", "flihgt"],
        ["ingest", "flihgt"],
        ["why", "flihgt"],
        ["report", "flihgt"],
    ],
)
def test_an_unknown_pipeline_is_told_by_every_command(project: Path, command: list[str]) -> None:
    done = perennial(project, *command)
    assert done.returncode == 2
    assert "there is no pipeline named 'flihgt'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_step_is_answered_with_the_nearest(project: Path) -> None:
    done = perennial(project, "step", "trian", "churn")
    assert done.returncode == 1
    assert "did you mean 'train'?" in done.stderr


def test_a_command_that_needs_the_platform_says_how_to_start_it(project: Path) -> None:
    perennial(project, "new", "churn")
    done = perennial(project, "run", "churn")
    assert done.returncode == 1
    assert "the platform is not running" in done.stderr
    assert "perennial up" in done.stderr


@pytest.mark.parametrize("order", ["pause", "resume"])
def test_what_to_pause_or_resume_must_be_named_once(project: Path, order: str) -> None:
    nothing, both = perennial(project, order), perennial(project, order, "churn", "--all")
    assert nothing.returncode == both.returncode == 1
    assert f"nothing to {order} is named" in nothing.stderr
    assert f"what to {order} is not clear" in both.stderr
    assert f"perennial {order} --all" in both.stderr


def test_step_shows_its_request_without_running_it(project: Path) -> None:
    perennial(project, "new", "churn")
    done = perennial(
        project,
        "step",
        "deploy",
        "churn",
        "--run-key",
        "try",
        "--param",
        "share=0.1",
        "--input",
        "train.model_version=3",
        "--dry-run",
    )
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)
    assert request["params"] == {"share": 0.1}
    assert request["inputs"] == {"train": {"model_version": 3}}


def test_a_pair_without_equals_is_refused(project: Path) -> None:
    perennial(project, "new", "churn")
    done = perennial(project, "step", "deploy", "churn", "--param", "share")
    assert done.returncode == 1
    assert "KEY=VALUE" in done.stderr


def test_a_replay_speed_without_a_unit_is_refused(project: Path) -> None:
    perennial(project, "new", "churn")
    done = perennial(project, "replay", "churn", "--from", "2013-06-01", "--to", "2013-06-02", "--per-second", "fast")
    assert done.returncode == 2
    assert "expected a number with a unit" in done.stderr


def test_the_demonstration_refuses_a_state_folder_that_is_not_its_own(project: Path) -> None:
    perennial(project, "new", "flight-delays")
    (project / ".perennial").mkdir()
    (project / ".perennial" / "mine").touch()
    done = perennial(project, "demo")
    assert done.returncode == 1
    assert "not the demonstration's" in done.stderr
    assert (project / ".perennial" / "mine").exists()


@pytest.mark.parametrize("command", [["why", "churm"], ["report", "churm"]])
def test_why_and_report_bring_the_nearest_name(project: Path, command: list[str]) -> None:
    perennial(project, "new", "churn")
    done = perennial(project, *command)
    assert done.returncode == 2
    assert "did you mean 'churn'?" in done.stderr


@pytest.mark.parametrize("command", [["why", "churn"], ["why", "churn", "--json"], ["report", "churn"]])
def test_why_and_report_say_that_the_platform_is_not_up(project: Path, command: list[str]) -> None:
    perennial(project, "new", "churn")
    done = perennial(project, *command)
    assert done.returncode == 1
    assert "the platform is not running" in done.stderr
    assert done.stdout == ""
    assert not (project / "churn-report.html").exists()


@pytest.mark.parametrize("since", ["banana", "7", "-1d", "0s", "10s", "9999999d"])
def test_a_report_of_a_time_that_is_none_is_refused(project: Path, since: str) -> None:
    perennial(project, "new", "churn")
    done = perennial(project, "report", "churn", "--since", since)
    assert done.returncode == 2
    assert "--since" in done.stderr
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_that_cannot_be_written_is_told_before_anything_is_asked(project: Path) -> None:
    perennial(project, "new", "churn")
    done = perennial(project, "report", "churn", "--output", "no/such/folder/page.html")
    assert done.returncode == 1
    assert "its folder does not exist" in done.stderr
    assert "--output" in done.stderr


@pytest.mark.parametrize("words", [["flights"], ["--until-done"]])
def test_status_says_which_words_go_together(project: Path, words: list[str]) -> None:
    done = perennial(project, "status", *words)
    assert done.returncode == 2
    assert "go with --watch" in done.stderr
