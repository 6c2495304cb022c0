"""The load: whole requests written to files, sent by wrk as fast as they are answered, or by `pace` on a schedule."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from bench.serving.data import FORMS, Batch
from bench.serving.process import LOAD_CORE, Failed, Process, WrongAnswer, user_seconds
from bench.serving.servers import HERE, Server

CHECKED = 5
"""Bodies of each size whose answers are compared with XGBoost's before anything is timed."""


@dataclass(frozen=True)
class Cell:
    """One server under one load. Times in microseconds."""

    connections: int
    rows: int
    rate: float
    """Requests per second."""
    p50: float
    p99: float
    cpu: float
    """The server's CPU time per request, all of its processes."""
    busy: float
    """Share of its core that the server used. Far below 1 means that the load generator was the limit, not the server."""
    others: float
    """Cores that processes that are none of this used meanwhile, outside of the kernel: the figures are only as good as this is small."""


@dataclass(frozen=True)
class Paced:
    """One server at a fixed rate of single rows. Times in microseconds, from the time that the schedule said."""

    asked: float
    rate: float
    p50: float
    p99: float
    p999: float
    late_p99: float
    """How late the load generator itself was."""
    failed: int


def write_requests(file: Path, server: Server, bodies: Sequence[bytes]) -> Path:
    """One line with the lengths, then the requests: what rows.lua and pace.c read."""
    requests = [
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (server.path.encode(), len(body), body)
        for body in bodies
    ]
    file.write_bytes(" ".join(str(len(request)) for request in requests).encode() + b"\n" + b"".join(requests))
    return file


def answers(server: Server, port: int, body: bytes) -> httpx.Response | None:
    """Its answer to one body, None while there is no server."""
    headers = {"Content-Type": "application/json"}
    try:
        return httpx.post(f"http://127.0.0.1:{port}{server.path}", content=body, headers=headers, timeout=20)
    except httpx.HTTPError:
        return None


def check(server: Server, port: int, batches: Sequence[Batch]) -> None:
    """Raises:
    WrongAnswer: an answer is not XGBoost's, to the precision of float32.
    Failed: it does not answer.
    """
    form = FORMS[server.form]
    for batch in batches[:CHECKED]:
        answer = answers(server, port, batch.body(form))
        if answer is None or answer.status_code != 200:
            raise Failed(
                f"{server.name} answers {answer.status_code if answer else 'nothing'}: {answer and answer.text[:500]}"
            )
        if server.kind == "hello":
            continue
        scores, expected = form.read(answer.json()), batch.expected(form)
        if len(scores) != len(expected) or not all(map(_close, scores, expected)):
            raise WrongAnswer(f"{server.name} answers {list(scores)[:3]}, XGBoost {expected[:3]}")


def _close(score: Any, expected: float) -> bool:
    return math.isclose(float(score), expected, rel_tol=1e-4, abs_tol=1e-6)


def wrk(port: int, requests: Path, connections: int, seconds: float) -> dict[str, float]:
    """As fast as it is answered; needs `wrk` (Debian: apt-get install wrk)."""
    # wrk takes whole seconds only
    words = ["-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--timeout", "10s", "-s", str(HERE / "rows.lua")]
    said = _run(["wrk", *words, f"http://127.0.0.1:{port}/", "--", str(requests)])
    found: dict[str, float] = json.loads(said.partition("RESULT ")[2])
    return found


def measure(
    process: Process, server: Server, port: int, requests: Path, connections: int, rows: int, seconds: float
) -> Cell:
    """One cell, after a warm-up of a second.

    Raises:
        Failed: a request was not answered with 200.
    """
    wrk(port, requests, connections, 1)
    before, foreign, began = process.cpu_seconds(), _foreign_seconds(process), time.monotonic()
    found = wrk(port, requests, connections, seconds)
    used, foreign = process.cpu_seconds() - before, _foreign_seconds(process) - foreign
    others = max(0.0, foreign) / (time.monotonic() - began)
    if found["failed"] or not found["answered"]:
        raise Failed(f"{server.name}, {connections} connections, {rows} rows: {found}\n{process.said()}")
    cpu = used / found["answered"]
    return Cell(connections, rows, found["rate"], found["p50"], found["p99"], cpu * 1e6, cpu * found["rate"], others)


def _foreign_seconds(process: Process) -> float:
    """CPU time so far that is neither the server's, nor of the children that have ended, which the load generators are."""
    return user_seconds() - process.user_seconds() - os.times().children_user


def pace(tools: Path, port: int, requests: Path, rate: float, seconds: float, connections: int = 32) -> Paced:
    """At `rate` requests per second, whatever the answers; see pace.c."""
    words = [str(port), str(seconds), "1", str(rate), str(connections), str(requests)]
    found = json.loads(_run([str(tools / "pace"), *words]))
    return Paced(rate, found["rate"], found["p50"], found["p99"], found["p999"], found["late_p99"], found["failed"])


def compile_tools(folder: Path) -> Path:
    """The C programs, by the compiler of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pace", "hello"):
        subprocess.run(["cc", "-O2", "-o", str(folder / name), str(HERE / f"{name}.c"), "-lm"], check=True)
    return folder


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(["taskset", "-c", str(LOAD_CORE), *command], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout
