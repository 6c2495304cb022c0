"""How much of a retraining is the platform's own time? The same steps as one plain script, on the same data and machine, in turn.

    python bench/loop.py [--runs 3]

Each run starts a platform in an empty folder, trains the first champion on January and February, lands March to May, and sends
June's flights until the drift alert fires; the traffic then stops, so that both sides have the machine to themselves. Timed: from
the moment that the drift threshold was crossed in Prometheus to the registration of the challenger, leg by leg. Then bench/plain.py
does the same work on the same files, with its champion of the same months. Medians and ratios go to bench/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import httpx

from perennial_cli.clients.airflow import Airflow, Task
from perennial_cli.clients.controller import Decision
from perennial_cli.demo.script import Script
from perennial_cli.demo.story import Clients
from perennial_cli.demo.world import World
from perennial_cli.embedded import connection, supervisor
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.up import Options, start
from perennial_cli.follow import follow
from perennial_cli.replay.engine import Replay, Target
from perennial_cli.replay.load import load_plan
from perennial_spec.load import load_pipeline
from perennial_spec.platform import Platform

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
PIPELINE = load_pipeline(ROOT / "dags" / "pipelines" / "flight-delays")
SCRIPT = Script()
STEPS = ("ingest", "validate", "train")
WAIT_SECONDS = 120
VALIDATED = """
The data was validated when it arrived, so the platform's `validate` reads that record; the plain script validates in its run.
"""


@dataclass(frozen=True)
class Measured:
    """One retraining, in seconds by leg, from the threshold to the registered challenger."""

    total: float
    alert: float
    """Threshold crossed in Prometheus, until the controller has the alert."""
    controller: float
    """Written down, decided and delivered to Airflow."""
    airflow: float
    """From delivery to the first task, and between tasks."""
    start: float
    """Within tasks, before and after a step's work: Airflow's task runner, the child process, imports."""
    work: float
    """What the steps did, until the challenger was registered."""


def measure_platform(folder: Path) -> Measured:
    home = Home(folder / "home")
    world = World(folder / "year", home.lake)
    world.prepare()
    start(Options(ROOT, home.path, port_base=0))
    try:
        platform = connection.load(home.path)
        clients = Clients.of(platform)
        _prepare(clients, world)
        decision = _until_alert(clients, platform, world)
        return _timeline(clients.airflow, platform, decision)
    finally:
        supervisor.stop(home)


def _prepare(clients: Clients, world: World) -> None:
    world.deliver(SCRIPT.first_months)
    _wait("the DAG", lambda: clients.airflow.has_dag(PIPELINE.name))
    _run(clients, clients.controller.request_run(PIPELINE.name, "the first model", "bench"))
    _wait("the server", lambda: clients.server.is_ready(PIPELINE.name))
    world.deliver(SCRIPT.later_months)
    _run(clients, clients.controller.announce_data(PIPELINE.name, "later months", "later"))


def _run(clients: Clients, decision: Decision) -> None:
    done = follow(clients.airflow, str(decision.dag_id), str(decision.run_id), lambda _: None, timeout_seconds=300)
    if not done.succeeded:
        raise SystemExit(f"{decision.run_id} failed: {[task.id for task in done.failed_tasks]}")


def _until_alert(clients: Clients, platform: Platform, world: World) -> Decision:
    plan = load_plan(PIPELINE, world.year, start=SCRIPT.replay_from, end=SCRIPT.replay_to, per_second=SCRIPT.per_second)
    replay = Replay(plan, Target(platform.need("server_url"), PIPELINE.name))
    thread = threading.Thread(target=replay.run, daemon=True)
    thread.start()

    def accepted() -> Decision | None:
        found = clients.controller.decisions(PIPELINE.name)
        return next((d for d in found if d.kind == "alert" and d.decision == "accepted" and d.run_id), None)

    try:
        return _wait("the alert's decision", accepted)
    finally:
        replay.stop()
        thread.join()


def _timeline(airflow: Airflow, platform: Platform, decision: Decision) -> Measured:
    dag, run = str(decision.dag_id), str(decision.run_id)

    def trained() -> list[Task] | None:
        tasks = {task.id: task for task in airflow.tasks(dag, run)}
        return [tasks[step] for step in STEPS] if tasks["train"].state == "success" else None

    tasks = _wait("the training", trained)
    results = [airflow.xcom(dag, run, step, key="result") for step in STEPS]
    version = airflow.xcom(dag, run, "train")["model_version"]
    registered, crossed = _registered(platform, version), _crossed(platform)
    received, delivered = _seconds(decision.received_at), _delivered(airflow, dag, run)
    begun = [task.start.timestamp() for task in tasks if task.start]
    ended = [task.end.timestamp() for task in tasks if task.end]
    work = sum(float(result["seconds"]) for result in results)
    gaps = (begun[0] - delivered) + sum(later - before for later, before in zip(begun[1:], ended[:-1], strict=True))
    total = registered - crossed
    alert, controller = received - crossed, delivered - received
    return Measured(total, alert, controller, gaps, total - alert - controller - gaps - work, work)


def _crossed(platform: Platform) -> float:
    query = f'min(min_over_time(timestamp(perennial:feature_psi:over{{pipeline="{PIPELINE.name}",feature!="prediction"}})[15m:1s]))'
    found = httpx.get(f"{platform.prometheus_url}/api/v1/query", params={"query": query}, timeout=30).json()
    return float(found["data"]["result"][0]["value"][1])


def _registered(platform: Platform, version: str) -> float:
    answer = httpx.get(
        f"{platform.mlflow_url}/api/2.0/mlflow/model-versions/get",
        params={"name": PIPELINE.name, "version": version},
        timeout=30,
    )
    return int(answer.json()["model_version"]["creation_timestamp"]) / 1000


def _delivered(airflow: Airflow, dag: str, run: str) -> float:
    found = airflow.run(dag, run)
    assert found and found.queued
    return found.queued.timestamp()


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


@dataclass(frozen=True)
class Plain:
    """One retraining by the plain script, in seconds."""

    total: float
    evaluate: float
    """Of these, judging the challenger: the platform does so after it has registered it, so its total has none."""


def measure_plain(folder: Path) -> Plain:
    """The plain script's time for the same retraining; its first champion is made before, and not timed."""
    lake, work, tracking = folder / "plain-lake", folder / "plain", folder / "plain.db"
    work.mkdir()
    world = World(folder / "year", lake)
    script, database = str(ROOT / "bench" / "plain.py"), f"sqlite:///{tracking}"
    command = [sys.executable, script, "--lake", str(lake), "--work", str(work), "--mlflow", database]
    world.deliver(SCRIPT.first_months)
    subprocess.run(command, check=True, capture_output=True)
    world.deliver(SCRIPT.later_months)
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    printed = done.stdout.splitlines()[-1]
    print(printed, file=sys.stderr)
    return Plain(seconds, json.loads(printed)["legs"]["evaluate"])


def _wait(what: str, look: Callable[[], T | None], seconds: float = WAIT_SECONDS) -> T:
    began = time.monotonic()
    while not (found := look()):
        if time.monotonic() - began > seconds:
            raise SystemExit(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)
    return found


def report(platform: list[Measured], plain: list[Plain]) -> str:
    """The section of results.md."""
    median = statistics.median
    script = median(run.total for run in plain)
    without = median(run.total - run.evaluate for run in plain)
    total = median(run.total for run in platform)
    ratio = median(run.total / other.total for run, other in zip(platform, plain, strict=True))
    target = 1.5 * script + 5
    rows = [
        ("threshold crossed to alert at the controller", "alert"),
        ("ledger, policy, delivery to Airflow", "controller"),
        ("Airflow: to the first task, and between tasks", "airflow"),
        ("process start and imports, within tasks", "start"),
        ("work: ingest, validate, train, register", "work"),
        ("**total**", "total"),
    ]
    lines = [f"| {title} | {median(getattr(run, name) for run in platform):.1f} |" for title, name in rows]
    return "\n".join(
        [
            "## loop",
            "",
            f"`python bench/loop.py --runs {len(plain)}` on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, in turn; "
            f"medians of {len(plain)} runs.",
            "",
            "| from the drift threshold crossed to the challenger registered | seconds |",
            "| --- | ---: |",
            *lines,
            f"| the same work as one plain script | {script:.1f} |",
            f"| the plain script without its evaluation, which the platform does after registering | {without:.1f} |",
            "",
            f"Ratio of each pair, median: {ratio:.2f}. Target: at most 1.5 times the plain script and 5 s, {target:.1f} s: "
            f"{'held' if total <= target else 'missed'}.",
            "",
            "All runs: platform "
            + ", ".join(f"{run.total:.1f}" for run in platform)
            + "; plain script "
            + ", ".join(f"{run.total:.1f}" for run in plain)
            + ".",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    platform: list[Measured] = []
    plain: list[Plain] = []
    for run in range(parser.parse_args().runs):
        folder = Path(tempfile.mkdtemp(prefix="perennial-bench-"))
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own when this is root
        try:
            platform.append(measure_platform(folder))
            plain.append(measure_plain(folder))
            print(f"run {run + 1}: {platform[-1]}, plain script {plain[-1]}", file=sys.stderr)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    text = "# Results\n\n" + report(platform, plain)
    text += VALIDATED
    (ROOT / "bench" / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
