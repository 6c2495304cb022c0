"""How long the traffic takes to move by hand, and what following costs MLflow: `python -m bench.rollback`, from the project's folder.

Four model servers in processes of their own follow a real MLflow under load, as users start them, but without grace: a rollback finds what
it finds an hour after a promotion. Measured is the time from the start of the command `perennial rollback` or `perennial promote` to the
last answer of the version that leaves, as the clients see it. Then a hundred followers look at the same MLflow at the usual pace. A
full run replaces the section `rollback` of bench/results.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from bench.serving.data import COLUMNS, PIPELINE, columns_of, train
from bench.serving.process import SERVER_CORE, Failed, Process
from bench.serving.registry import Registry as Served
from bench.serving.report import processor, write_section

from perennial_cli.embedded import connection
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.lock import held
from perennial_registry.promotion import plan, promote
from perennial_registry.registry import Registry
from perennial_serving.pace import Pace
from perennial_serving.registry import Registry as Followed
from perennial_serving.settings import Settings
from perennial_spec.errors import RegistryError
from perennial_spec.platform import Platform

SERVERS, CONNECTIONS, FOLLOWERS = 4, 8, 100
PAUSE = 0.005
"""Seconds between an answer and the next request of a connection."""
PROMISED = 5.0
"""Seconds, from the order to the last answer of the version that leaves."""
ROUNDS, SECONDS = 10, 20.0
WORKERS = 4
"""Of MLflow: as many as it has by default."""
PROCESSES, WARM_UP = 4, 5.0
"""Of the followers; seconds until all have connected."""


@dataclass(frozen=True)
class Answer:
    at: float
    status: int
    version: str
    server: str


@dataclass
class Load:
    """Connections that ask one server each, row by row."""

    urls: list[str]
    answers: list[Answer] = field(default_factory=list)
    lost: int = 0
    """Requests without an answer."""

    @property
    def failed(self) -> int:
        """Requests without an answer, or with another than 200."""
        return self.lost + sum(answer.status != 200 for answer in self.answers)

    @contextmanager
    def on(self) -> Iterator[None]:
        ended = threading.Event()
        connections = itertools.islice(itertools.cycle(self.urls), CONNECTIONS)
        asking = [threading.Thread(target=self._ask, args=(url, ended)) for url in connections]
        for thread in asking:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in asking:
                thread.join()

    def _ask(self, url: str, ended: threading.Event) -> None:
        columns = columns_of(100, 3)
        rows = itertools.cycle([[columns[name][n].item() for name in COLUMNS] for n in range(100)])
        with httpx.Client(base_url=url, timeout=30) as client:
            while not ended.wait(PAUSE):
                body = {"dataframe_split": {"columns": list(COLUMNS), "data": [next(rows)]}}
                try:
                    answer = client.post(f"/pipelines/{PIPELINE}/invocations", json=body)
                except httpx.HTTPError:
                    self.lost += 1
                    continue
                version = answer.headers.get("X-Perennial-Version", "")
                self.answers.append(Answer(time.time(), answer.status_code, version, url))

    def until(self, version: str, since: float, seconds: float = 60) -> None:
        """Until every server answers with the version alone, for a second.

        Raises:
            Failed: that did not come about.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = time.time()
            last = [answer for answer in self.answers[-20_000:] if answer.at > max(since, now - 1)]
            if (
                now > since + 1
                and {a.server for a in last} == set(self.urls)
                and {a.version for a in last} == {version}
            ):
                return
            time.sleep(0.05)
        raise Failed(f"not every server answers with version {version}")

    def last_of(self, version: str, since: float) -> float:
        """When the version answered last, in Unix seconds; `since`, when it has not since then."""
        return max((a.at for a in self.answers if a.version == version), default=since)


@dataclass(frozen=True)
class Following:
    """What a number of followers cost MLflow, and what they got."""

    took: list[float]
    """Seconds of each look."""
    failed: int
    seconds: float
    cpu: float
    """Seconds of processor time that MLflow took."""


@dataclass
class Measured:
    rollbacks: list[float] = field(default_factory=list)
    promotions: list[float] = field(default_factory=list)
    requests: int = 0
    failed: int = 0
    per_second: float = 0.0
    following: Following | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="a rollback and a promotion each")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for which the followers look")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder:
        try:
            found = _measure(Path(folder), options.rounds, options.seconds)
        except Failed as failed:
            print(f"failed: {failed}", file=sys.stderr)
            return 1
    text = section(found, " ".join(["python -m bench.rollback", *sys.argv[1:]]))
    if options.rounds >= ROUNDS and options.seconds >= SECONDS:
        write_section("rollback", text)
    print(text)
    return 0


def _measure(folder: Path, rounds: int, seconds: float) -> Measured:
    served, found = Served(folder / "registry", WORKERS, "0,1"), Measured()
    try:
        with Registry(served.mlflow_url) as registry:
            for seed in (1, 2):
                train(folder / f"model-{seed}", seed)
                version = served.register(folder / f"model-{seed}" / "bundle")
                promote(registry, plan(registry, PIPELINE, version, force=True), "the benchmark")
        with _servers(folder, served.mlflow_url) as servers, _command(folder, served.mlflow_url) as command:
            _move(servers, command, rounds, found)
        found.following = _follow(served, seconds)
    finally:
        served.stop()
    return found


def _move(servers: dict[str, Path], command: Any, rounds: int, found: Measured) -> None:
    load, began = Load(list(servers)), time.time()
    with load.on():
        load.until("2", 0)
        for _ in range(rounds):
            _until_standby(servers, "1")
            found.rollbacks.append(_took(load, command, "2", "1", "rollback"))
            found.promotions.append(_took(load, command, "1", "2", "promote", "--version", "2", "--force"))
    found.requests, found.failed = len(load.answers) + load.lost, load.failed
    found.per_second = found.requests / (time.time() - began)


def _until_standby(servers: dict[str, Path], version: str, seconds: float = 60) -> None:
    """Until the version stands by on every server, as its log says.

    Raises:
        Failed: that did not come about.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        said = [re.findall(rf"version {version} of {PIPELINE} is (.*)", log.read_text()) for log in servers.values()]
        if all(lines and lines[-1].startswith("on standby") for lines in said):
            return
        time.sleep(0.1)
    raise Failed(f"version {version} does not stand by on every server")


def _took(load: Load, command: Any, leaves: str, comes: str, *arguments: str) -> float:
    since = time.time()
    command(*arguments)
    load.until(comes, since)
    return load.last_of(leaves, since) - since


@contextmanager
def _servers(folder: Path, mlflow_url: str) -> Iterator[dict[str, Path]]:
    """The logs of four servers with their own settings, but without grace, by address."""
    processes, logs = [], [folder / f"server-{n}" / "log" for n in range(SERVERS)]
    try:
        for log in logs:
            log.parent.mkdir()
            known = {
                "PERENNIAL_PORT": "0",
                "PERENNIAL_HOME": str(log.parent),
                "MLFLOW_TRACKING_URI": mlflow_url,
                "PERENNIAL_SERVING_GRACE_SECONDS": "0",
            }
            processes.append(Process([sys.executable, "-m", "perennial_serving"], log, SERVER_CORE, known))
        for process, log in zip(processes, logs, strict=True):
            process.until(lambda log=log: _is_ready(log), "a model server")  # type: ignore[misc]
        yield {_address(log): log for log in logs}
    finally:
        for process in processes:
            process.stop()


def _address(log: Path) -> str:
    found = re.search(r"listening on (http://\S+)", log.read_text())
    return found[1] if found else ""


def _is_ready(log: Path) -> bool:
    try:
        return bool(url := _address(log)) and httpx.get(f"{url}/v2/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def _command(folder: Path, mlflow_url: str) -> Iterator[Any]:
    """`perennial COMMAND bench ...` as a person calls it; it waits for nothing."""
    home = Home(folder / "home")
    home.prepare()
    pipelines = folder / "pipelines"
    connection.save(home, Platform(mlflow_url=mlflow_url, pipelines_dir=str(pipelines)))

    def call(name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "perennial_cli", name, PIPELINE, "--no-wait", *arguments]
        known = {**os.environ, "PERENNIAL_HOME": str(home.path)}
        done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Failed(f"perennial {name} ended with {done.returncode}:\n{done.stderr[-1500:]}")

    with held(home.lock):
        yield call


def _follow(served: Served, seconds: float) -> Following:
    """As many followers as a large fleet has, each with its own connection and at its own random moments."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        asked = [pool.submit(_looks, served.mlflow_url, seconds) for _ in range(PROCESSES)]
        time.sleep(WARM_UP)
        cpu, began = served.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        took, cpu = time.monotonic() - began, served.cpu_seconds() - cpu
        looks = [look for done in asked for look in done.result()]
    return Following([look for look in looks if look is not None], looks.count(None), took, cpu)


def _looks(mlflow_url: str, seconds: float) -> list[float | None]:
    """What the followers of one process get after the warm-up: seconds of each look; None: it failed."""
    found: list[float | None] = []
    begin = time.monotonic() + WARM_UP

    def follow() -> None:
        registry, pace = Followed(mlflow_url, 5.0), Pace(Settings())
        wait = random.uniform(0, Settings().poll_seconds)
        while (start := time.monotonic() + wait) < begin + seconds:
            time.sleep(wait)
            took: float | None = None
            try:
                registry.routed()
            except RegistryError:
                wait = pace.failed()
            else:
                took = time.monotonic() - start
                wait = pace.answered(took)
            if start >= begin:
                found.append(took)
        registry.close()

    threads = [threading.Thread(target=follow) for _ in range(FOLLOWERS // PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def section(found: Measured, command: str) -> str:
    """The section `rollback` of the results."""
    kept = "held" if max(found.rollbacks) <= PROMISED and not found.failed else "missed"
    lines = [
        "## rollback",
        "",
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({processor()}). {SERVERS} model servers on one "
        f"core, a real MLflow, {CONNECTIONS} connections, 300 trees. The command's own start is within the time. A rollback finds its "
        "version on standby; one that was rolled back and is promoted by force must be loaded, by all servers at once.",
        "",
        "| from the start of the command to the last answer of the version that leaves, seconds | median | worst | rounds |",
        "| --- | ---: | ---: | ---: |",
        _row("`perennial rollback`", found.rollbacks),
        _row("`perennial promote --force`", found.promotions),
        "",
        f"Under load: {found.requests:,} requests, {found.per_second:,.0f} a second, {found.failed} failed. "
        f"Target: a rollback takes at most {PROMISED:g} s, and no request fails: {kept}.",
    ]
    if found.following is not None and len(found.following.took) > 1:
        lines += ["", _following(found.following)]
    return "\n".join(lines) + "\n"


def _following(found: Following) -> str:
    looks = len(found.took)
    return (
        f"{FOLLOWERS} followers at the usual pace (a look every {Settings().poll_seconds:g} s and a bit) of an MLflow with "
        f"{WORKERS} workers, on the same cores: {looks / found.seconds:.0f} looks a second, {found.failed} failed; "
        f"{1000 * median(found.took):.0f} ms in the median, {1000 * quantiles(found.took, n=100)[-1]:.0f} ms at p99; MLflow takes "
        f"{found.cpu / found.seconds:.1f} cores, {1000 * found.cpu / looks:.0f} ms a look."
    )


def _row(title: str, seconds: list[float]) -> str:
    return f"| {title} | {median(seconds):.1f} | {max(seconds):.1f} | {len(seconds)} |"


if __name__ == "__main__":
    raise SystemExit(main())
