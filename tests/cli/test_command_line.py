"""`perennial` as a user calls it: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perennial_cli.commands import COMMANDS
from perennial_cli.embedded import supervisor
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.part import Part, Plan, Tcp
from perennial_cli.embedded.ports import free_ports

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dags" / "pipelines").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        environment.pop("PERENNIAL_HOME", None)
        command = [sys.executable, "-m", "perennial_cli", *words]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=environment, timeout=120, check=False
        )

    return call


@pytest.fixture
def platform(folder: Path) -> Iterator[Home]:
    """A platform of one web server and of a part that cannot live, which nobody waits for."""
    home = supervisor.home_at(folder / ".perennial")
    port = free_ports(1)[0]
    web = Part(
        "web",
        (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"),
        ready=Tcp(port),
        address=f"http://127.0.0.1:{port}",
    )
    supervisor.launch(home, lambda: Plan(home.instance(), (web,)), timeout=60)
    yield home
    supervisor.stop(home)


def test_help_names_every_command_and_imports_none(run: Run) -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for name, entry in COMMANDS.items():
        assert name in shown.stdout
        assert entry.summary in shown.stdout
    probe = (
        "import sys; sys.argv = ['perennial', '--help']\n"
        "from perennial_cli.app import make_app\n"
        "try: make_app()()\n"
        "except SystemExit: pass\n"
        "heavy = {'mlflow', 'psutil', 'pydantic', 'pandas', 'httpx', 'perennial_cli.embedded'}\n"
        "print('IMPORTED', sorted(heavy & set(sys.modules)), [m for m in sys.modules if 'perennial_cli.commands.' in m])\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)
    assert "IMPORTED [] []" in done.stdout


@pytest.mark.parametrize("name", ["up", "down", "status", "logs"])
def test_every_command_of_the_platform_has_help(run: Run, name: str) -> None:
    shown = run(name, "--help")
    assert shown.returncode == 0
    assert f"perennial {name}" in shown.stdout


def test_a_command_that_does_not_exist_brings_the_nearest(run: Run) -> None:
    shown = run("stauts")
    assert shown.returncode == 2
    assert "Did you mean 'status'?" in shown.stderr


def test_status_of_a_platform_that_is_not_running(run: Run) -> None:
    shown = run("status")
    assert shown.returncode == 3
    assert "not running" in shown.stdout
    document = json.loads(run("status", "--json").stdout)
    assert document["running"] is False


@pytest.mark.usefixtures("platform")
def test_status_names_each_part_its_state_and_its_address_without_colours(run: Run, platform: Home) -> None:
    shown = run("status")
    assert shown.returncode == 0
    state = supervisor.status(platform)
    assert state
    part = state.parts[0]
    line = next(line for line in shown.stdout.splitlines() if line.startswith("web"))
    assert line.split()[:3] == ["web", "ready", str(part.pid)]
    assert line.split()[-1] == part.address
    assert "\x1b[" not in shown.stdout


def test_status_as_json_is_for_programs(run: Run, platform: Home) -> None:
    document = json.loads(run("status", "--json").stdout)
    assert document["healthy"] is True
    assert document["home"] == str(platform.path)
    assert [part["name"] for part in document["parts"]] == ["web"]
    assert document["parts"][0]["restarts"] == 0


@pytest.mark.usefixtures("platform")
def test_up_while_it_runs_says_so_and_succeeds(run: Run) -> None:
    shown = run("up")
    assert shown.returncode == 0, shown.stderr
    assert "running already" in shown.stdout


@pytest.mark.usefixtures("platform")
def test_down_ends_it_and_a_second_down_finds_nothing(run: Run) -> None:
    assert "has ended" in run("down").stdout
    again = run("down")
    assert again.returncode == 0
    assert "not running" in again.stdout


def test_logs_show_the_end_of_a_parts_log(run: Run, platform: Home) -> None:
    platform.log("web").write_text("one\ntwo\nthree\n")
    assert run("logs", "web", "-n", "2").stdout == "two\nthree\n"


@pytest.mark.usefixtures("platform")
def test_logs_of_an_unknown_part_bring_the_nearest(run: Run) -> None:
    shown = run("logs", "wep")
    assert shown.returncode == 1
    assert "there is no log of 'wep'" in shown.stderr
    assert "did you mean 'web'?" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_outside_a_project_up_says_what_a_project_is(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PERENNIAL_HOME"}
    done = subprocess.run(
        [sys.executable, "-m", "perennial_cli", "up"],
        capture_output=True,
        text=True,
        cwd="/",
        env={**environment, "PERENNIAL_HOME": str(tmp_path / "state")},
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "not inside a Perennial project" in done.stderr
