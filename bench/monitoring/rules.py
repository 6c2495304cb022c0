"""What evaluating the project's rules costs: a real Prometheus that scrapes fake replicas, with a past of a day.

Of the past only that is written which the rules read: rows all day long, bins at one window before now.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml
from bench.monitoring.replicas import JOB, Replica, controller_page, serve
from bench.serving.process import Failed, free_port

RULES = Path(__file__).parents[2] / "monitoring" / "rules"
REPLICAS = 3
INTERVAL = 15
"""Seconds between two scrapes and two evaluations: Prometheus' own default is a minute, the embedded platform's one second."""
WINDOWS = {"5m": 300, "1h": 3600, "1d": 86_400}
AHEAD, EVERY = 600, 240
"""Bins are written for so many seconds before and after a window's far end, which a measurement may take, and so often: Prometheus looks
back five minutes for a sample."""
BLOCK = 7200
_DURATION = re.compile(r'prometheus_rule_group_last_duration_seconds\{rule_group="[^"]*;([^"]+)"\} (\S+)')
_MISSED = re.compile(r"prometheus_rule_group_iterations_missed_total\{[^}]*\} (\S+)")
_MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)", re.MULTILINE)
_SERIES = re.compile(r"^prometheus_tsdb_head_series (\S+)", re.MULTILINE)
_CPU = re.compile(r"^process_cpu_seconds_total (\S+)", re.MULTILINE)


@dataclass
class Evaluated:
    """Of one run."""

    pipelines: int
    features: int
    intervals: dict[str, float] = field(default_factory=dict)
    """Seconds, by rule group."""
    durations: dict[str, list[float]] = field(default_factory=dict)
    """Seconds, evaluation by evaluation."""
    missed: float = 0.0
    memory: float = 0.0
    """Bytes resident at the end."""
    series: float = 0.0
    cores: float = 0.0
    """Processors that Prometheus used, scrapes included."""
    alerts: int = 0
    """That fire: the rules had something to do."""
    scrape: float = 0.0
    """Seconds of the slowest scrape."""


def measure(folder: Path, pipelines: int, features: int, seconds: float) -> Evaluated:
    """Run Prometheus, and watch it for `seconds`. A group that is not evaluated meanwhile has no figures.

    Raises:
        Failed: Prometheus does not start, or its rules cannot be evaluated.
    """
    began = time.time()
    replicas = [Replica(pipelines, features, began) for _ in range(REPLICAS)]
    servers = [serve(replica.page) for replica in replicas]
    controller = serve(lambda: controller_page(pipelines))
    try:
        targets = [f"127.0.0.1:{server.server_port}" for server in servers]
        _write_past(folder, replicas, targets, began)
        _configure(folder, targets, f"127.0.0.1:{controller.server_port}")
        with (folder / "prometheus.log").open("wb") as log:
            return _run(folder, log, Evaluated(pipelines, features), seconds)
    finally:
        for server in (*servers, controller):
            server.shutdown()


def _run(folder: Path, log: object, found: Evaluated, seconds: float) -> Evaluated:
    port = free_port()
    command = [_program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=3d"]
    process = subprocess.Popen(command, stdout=log, stderr=log)  # type: ignore[call-overload]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            _until(lambda: http.get("/-/ready").status_code == 200, 60)
            _watch(http, found, seconds)
    finally:
        process.terminate()
        process.wait(60)
    return found


def _watch(http: httpx.Client, found: Evaluated, seconds: float) -> None:
    groups = http.get("/api/v1/rules").json()["data"]["groups"]
    found.intervals = {group["name"]: group["interval"] for group in groups}
    time.sleep(2 * INTERVAL)  # the first evaluations find half of the series
    began, cpu = time.monotonic(), _figure(_CPU, http.get("/metrics").text)
    missed = sum(map(float, _MISSED.findall(http.get("/metrics").text)))
    text = ""
    while time.monotonic() < began + seconds:
        time.sleep(INTERVAL)
        text = http.get("/metrics").text
        for group, took in _DURATION.findall(text):
            if float(took):  # 0 before the first time
                found.durations.setdefault(group, []).append(float(took))
    found.cores = (_figure(_CPU, text) - cpu) / (time.monotonic() - began)
    found.missed = sum(map(float, _MISSED.findall(text))) - missed
    found.memory, found.series = _figure(_MEMORY, text), _figure(_SERIES, text)
    found.alerts = int(_value(http, 'count(ALERTS{alertstate="firing",alertname="PerennialFeatureDrift"})'))
    found.scrape = _value(http, f'max(scrape_duration_seconds{{job="{JOB}"}})')
    broken = [f"{rule['name']}: {rule['lastError']}" for group in _rules(http) for rule in group if rule["lastError"]]
    if broken:
        raise Failed(f"rules cannot be evaluated: {broken[0]}")


def _rules(http: httpx.Client) -> list[list[dict[str, str]]]:
    groups = http.get("/api/v1/rules").json()["data"]["groups"]
    return [[{"lastError": "", **rule} for rule in group["rules"]] for group in groups]


def _value(http: httpx.Client, query: str) -> float:
    result = http.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def _figure(pattern: re.Pattern[str], text: str) -> float:
    found = pattern.search(text)
    return float(found.group(1)) if found else 0.0


def _configure(folder: Path, servers: Sequence[str], controller: str) -> None:
    jobs = ((JOB, list(servers)), ("perennial-controller", [controller]))
    body = {
        "global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": f"{INTERVAL}s"},
        "rule_files": [f"{RULES}/*.yml"],
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": targets}]} for job, targets in jobs],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(body))


def _write_past(folder: Path, replicas: Sequence[Replica], targets: Sequence[str], now: float) -> None:
    """Blocks of two hours, as Prometheus makes them itself."""
    first = int(now - WINDOWS["1d"] - AHEAD) // BLOCK * BLOCK
    for start in range(first, int(now), BLOCK):
        file = folder / "past.txt"
        with file.open("w") as out:
            for moment in range(max(start, int(now - WINDOWS["1d"] - AHEAD)), min(start + BLOCK, int(now)), INTERVAL):
                bins = (
                    any(abs(moment - (now - window)) <= AHEAD for window in WINDOWS.values())
                    and moment % EVERY < INTERVAL
                )
                for replica, target in zip(replicas, targets, strict=True):
                    out.writelines(_past_lines(replica, target, moment, bins))
            out.write("# EOF\n")
        command = [_program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "-q", str(file), f"{folder}/data"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"the past cannot be written: {done.stderr[-500:]}")
        file.unlink()


def _past_lines(replica: Replica, target: str, moment: int, bins: bool) -> Iterator[str]:
    own = f'{{job="{JOB}",instance="{target}",'
    for part in replica.past(moment, bins):
        yield part.replace("{", own).replace("\n", f" {moment}\n")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Failed(f"the benchmark needs {name}; next: make install")
    return found


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > end:
            raise Failed("Prometheus does not start")
        time.sleep(0.2)
