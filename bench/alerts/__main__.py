"""A bad minute of the controller: 10,000 alerts, 95% of them copies, from 4 connections. `python -m bench.alerts`, from the project's
folder.

The controller is a process of its own, as in production, on a real PostgreSQL that syncs to disk. Airflow and the registry are fakes, so
that their work is not measured. Afterwards the ledger is counted: nothing lost, nothing doubled. A full run replaces the section
`alerts` of bench/results.md.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from bench.alerts.flood import Flood, Sent, send
from bench.serving.process import Process, free_port
from bench.serving.report import processor, write_section

from perennial_cli.embedded import databases, postgres
from perennial_spec.platform import Platform

ROOT = Path(__file__).parents[2]
SPEC = """\
apiVersion: perennial/v1
name: {name}
owner: {{team: ops, contact: ops@example.com}}
data:
  sources: {{rows: "rows.parquet"}}
  timestamp: at
  entity: id
  label: {{column: late}}
model: {{kind: xgboost.classifier}}
evaluation: {{metric: roc_auc, gates: [{{metric: roc_auc, min: 0.6}}]}}
"""


@dataclass(frozen=True)
class Round:
    """One flood, and what it left."""

    sent: Sent
    memory: tuple[float, float]
    """MB of the server, before and after."""
    cpu: float
    """CPU seconds of the server."""
    ledger: str
    """What is in it, in words."""

    def milliseconds(self, percentile: int) -> float:
        return 1000 * quantiles(self.sent.seconds, n=100, method="inclusive")[percentile - 1]


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """The address of a real PostgreSQL with the platform's databases."""
    password, port = secrets.token_hex(8), free_port()
    (folder / "password").write_text(password)
    command = [sys.executable, "-m", "perennial_cli.embedded.postgres", str(folder / "postgres"), str(port)]
    server = Process(
        command, folder / "postgres.log", "0,1", {postgres.PASSWORD_FILE_VARIABLE: str(folder / "password")}
    )
    url = databases.url(port, password, "postgres")

    def answers() -> bool:
        try:
            databases.create_missing(url)
        except Exception:
            return False
        return True

    try:
        server.until(answers, "PostgreSQL", 120)
        yield databases.url(port, password, "perennial")
    finally:
        server.stop()


@contextmanager
def controller(folder: Path, url: str, flood: Flood) -> Iterator[tuple[Process, str, str]]:
    """The process, its address and its token."""
    sys.path.append(str(ROOT / "tests" / "support"))
    from controller_neighbours import FakeAirflow, FakeRegistry, served

    for number in range(flood.pipelines):
        pipeline = folder / "pipelines" / f"p{number:02d}"
        pipeline.mkdir(parents=True, exist_ok=True)
        (pipeline / "pipeline.yaml").write_text(SPEC.format(name=pipeline.name))
        (pipeline / "features.py").write_text("def features(columns):\n    return dict(columns)\n")
    token, port = secrets.token_hex(16), free_port()
    (folder / "token").write_text(token)
    (folder / "airflow.json").write_text('{"username": "controller", "password": "none"}')
    airflow, registry = FakeAirflow(dags={f"p{number:02d}" for number in range(flood.pipelines)}), FakeRegistry()
    with served(airflow.app()) as airflow_url, served(registry.app()) as registry_url:
        platform = Platform(
            pipelines_dir=str(folder / "pipelines"),
            store=str(folder / "store"),
            mlflow_url=registry_url,
            airflow_url=airflow_url,
            airflow_credentials_file=str(folder / "airflow.json"),
            token_file=str(folder / "token"),
            database_url=url,
        )
        environment = {**platform.to_environment(), "PERENNIAL_PORT": str(port)}
        server = Process([sys.executable, "-m", "perennial_controller"], folder / "controller.log", "0,1", environment)
        try:
            server.until(lambda: _ready(port), "the controller", 120)
            yield server, f"http://127.0.0.1:{port}", token
        finally:
            server.stop()


@contextmanager
def plain(folder: Path, url: str) -> Iterator[tuple[Process, str, str]]:
    """The same of the peer."""
    port = free_port()
    command = [sys.executable, "-m", "bench.alerts.plain", str(port), url]
    server = Process(command, folder / "plain.log", "0,1", {"PYTHONPATH": str(ROOT)})
    try:
        server.until(lambda: _ready(port), "the plain webhook", 60)
        yield server, f"http://127.0.0.1:{port}", "-"
    finally:
        server.stop()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def flooded(server: tuple[Process, str, str], flood: Flood, count: Any) -> Round:
    """Warm up with an alert, send the flood, then count."""
    process, url, token = server
    send(replace(flood, alerts=20, distinct=1, seconds=1.0), url, token)
    before, cpu = process.weight().pss, process.cpu_seconds()
    sent = send(flood, url, token)
    return Round(sent, (before, process.weight().pss), process.cpu_seconds() - cpu, count())


def counted(url: str, flood: Flood) -> str:
    """The controller's ledger, exactly.

    Raises:
        AssertionError: something was lost or doubled.
    """
    import psycopg

    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*), sum(duplicates), count(run_id) FILTER (WHERE delivery IS NOT NULL) FROM perennial_decisions"
        ).fetchone()
    assert row is not None
    rows, copies, runs = (int(value or 0) for value in row)
    warm_up = 19 + 1  # its alert is one of the flood's: 19 copies, and the flood's own first
    assert (rows, copies) == (flood.distinct, flood.alerts - flood.distinct + warm_up), (rows, copies)
    return f"{rows:,} rows, {copies - warm_up:,} copies, {runs} runs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.alerts", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ten seconds of it, once; writes nothing")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    chosen = parser.parse_args()
    flood = Flood(alerts=1_700, distinct=85, seconds=10.0) if chosen.quick else Flood()
    results: dict[str, list[Round]] = {}
    for _ in range(1 if chosen.quick else chosen.rounds):
        for name, one in measured(flood):
            results.setdefault(name, []).append(one)
            print(line(name, [one]), file=sys.stderr, flush=True)
    text = report(flood, results)
    print(text)
    if not chosen.quick:
        write_section("alerts", text)


def measured(flood: Flood) -> Iterator[tuple[str, Round]]:
    """Each server in turn, on a database of its own."""
    for name, grouped in (
        ("Perennial, an alert a body", 1),
        ("Perennial, 20 alerts a body", 20),
        ("a plain INSERT", 1),
    ):
        asked = replace(flood, grouped=grouped)
        with tempfile.TemporaryDirectory(prefix="perennial-bench-", ignore_cleanup_errors=True) as made:
            folder = Path(made)
            folder.chmod(0o755)
            with database(folder) as url:
                if name.startswith("Perennial"):
                    with controller(folder, url, asked) as server:
                        yield name, flooded(server, asked, lambda url=url, asked=asked: counted(url, asked))
                else:
                    with plain(folder, url) as server:
                        yield name, flooded(server, asked, lambda: "-")


def line(name: str, rounds: list[Round]) -> str:
    """One row of the table, of medians."""
    figures = [f"{median(each.milliseconds(percentile) for each in rounds):.1f} ms" for percentile in (50, 99)]
    worst = max(max(each.sent.seconds) for each in rounds) * 1000
    before, after = (median(each.memory[place] for each in rounds) for place in (0, 1))
    refused = sum(each.sent.refused for each in rounds)
    cpu = median(each.cpu for each in rounds)
    return (
        f"| {name} | {figures[0]} | {figures[1]} | {worst:.0f} ms | {cpu:.1f} s | {before:.0f} to {after:.0f} MB | {refused} | "
        f"{rounds[-1].ledger} |"
    )


def report(flood: Flood, results: dict[str, list[Round]]) -> str:
    rounds = len(next(iter(results.values())))
    rows = "\n".join(line(name, each) for name, each in results.items())
    return f"""## alerts

`python -m bench.alerts`, {datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, {rounds} rounds.

{flood.alerts:,} alerts in {flood.seconds:.0f} s from {flood.connections} connections, on {flood.pipelines} pipelines;
{flood.distinct} of them are distinct, the others copies. An answer's time counts from when it was due to be sent. After each round the
ledger has a row for each distinct alert and every copy noted on it, or the run fails.

| | p50 | p99 | worst | CPU | memory | refused | in the ledger |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
{rows}
"""


if __name__ == "__main__":
    main()
