"""One real platform for all tests of the loop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_platform import SPEC, WINTER, Loop, trips

from perennial_cli.embedded import connection, supervisor
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.up import Options, start
from perennial_spec.platform import Platform

APPROVED = "strategy: replace\n  approval: required"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A platform that is up, with the pipeline `trips` (January's and February's trips delivered) and a broken one."""
    project = tmp_path_factory.mktemp("project")
    (project / "dags").mkdir()
    for file in (ROOT / "dags").glob("*.py"):
        shutil.copy(file, project / "dags")
    (project / "monitoring").symlink_to(ROOT / "monitoring")
    home = Home(project / ".perennial")
    running = Loop(project, home, Platform())
    running.add_pipeline("trips")
    running.add_pipeline("signed", SPEC.format(name="signed").replace("steps: [50%, 100%]", APPROVED))
    running.add_pipeline("broken", SPEC.format(name="broken").replace("timestamp:", "timestmp:"))
    running.add_pipeline("patient", SPEC.format(name="patient").replace("bake: 3s", "bake: 4m"))
    start(Options(project, home.path, port_base=0))
    try:
        running.platform = connection.load(home.path)
        running.deliver("trips", "2024-01", trips(WINTER, "2024-01-01", 31, seed=1))
        running.deliver("trips", "2024-02", trips(WINTER, "2024-02-01", 29, seed=2))
        running.deliver("signed", "2024-01", trips(WINTER, "2024-01-01", 31, seed=1))
        yield running
    finally:
        supervisor.stop(home)
