"""The demonstration as one call: an empty platform, the story, the summary."""

from __future__ import annotations

import shutil

from perennial_cli.console import make_console, show_error
from perennial_cli.demo.legs import Summary
from perennial_cli.demo.screen import Screen
from perennial_cli.demo.script import Script
from perennial_cli.demo.story import Story
from perennial_cli.demo.world import World
from perennial_cli.embedded import connection, supervisor
from perennial_cli.embedded.home import Home, find_home, find_project
from perennial_cli.embedded.up import Options, start
from perennial_cli.embedded.view import StartProgress, addresses
from perennial_cli.paths import pipelines_dir
from perennial_spec.errors import PerennialError, PlatformError
from perennial_spec.load import discover

MARK = "demo"
"""A file in the state folder that says: made by the demonstration, may be made anew."""
SUMMARY = "demo-summary.json"


def run_demo(script: Script, *, dry_run: bool = False) -> int:
    """Tell the story on an empty platform.

    Returns:
        The exit code: 0 when the loop closed.
    """
    home, console = find_home(), make_console()
    pipeline = discover(pipelines_dir()).get(script.pipeline)
    screen, summary = Screen(console), Summary()
    if dry_run:
        console.print(
            f"would start a platform in {home.path}, {'which is made anew' if home.path.exists() else 'which is new'},"
        )
        console.print(f"and replay {script.replay_from:%Y-%m-%d} to {script.replay_to:%Y-%m-%d} for {pipeline.name}")
        return 0
    try:
        with screen.live():
            _make_anew(home, screen)
        screen.chapter("The platform starts: real parts, on this machine only")
        with summary.leg("Platform up") as leg:
            world = World(home.path / "year", home.lake)
            world.prepare()
            with StartProgress(console) as progress:
                start(Options(find_project(), home.path), progress)
            leg.outcome = "PostgreSQL, Airflow, MLflow, Prometheus, Alertmanager, server, controller"
        with screen.live():
            Story(
                pipeline=pipeline,
                platform=connection.load(home.path),
                world=world,
                script=script,
                screen=screen,
                summary=summary,
            ).tell()
    except PerennialError as error:
        show_error(error)
    except KeyboardInterrupt:
        console.print("\ninterrupted; the platform is left as it is. End it with: make down")
        return 130
    summary.save(home.path / SUMMARY)
    screen.summary(summary)
    state = supervisor.status(home)
    if state is not None:
        console.print(addresses(state))
        console.print(f"\nSign in to Airflow with the name and password in {home.secrets / 'airflow-credentials.json'}")
        console.print("End the platform with: make down")
    return 0 if summary.facts.get("closed") else 1


def _make_anew(home: Home, screen: Screen) -> None:
    """Empty the state folder of an earlier demonstration; refuse one that holds anything else."""
    if home.path.exists() and any(home.path.iterdir()):
        if not (home.path / MARK).exists():
            raise PlatformError(
                "the state folder holds a platform that is not the demonstration's",
                where=str(home.path),
                expected="an empty folder, or that of an earlier demonstration",
                next="give the demonstration its own: PERENNIAL_HOME=/path/to/folder make demo",
            )
        screen.say("an earlier demonstration is ended and its state removed")
        supervisor.stop(home)
        shutil.rmtree(home.path)
    home.path.mkdir(parents=True, exist_ok=True)
    (home.path / MARK).touch()
