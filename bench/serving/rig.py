"""What a run needs before the first server starts: environments, the model in all forms, requests, the registry."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.serving.data import FORMS, HUNDRED, HUNDREDS, SINGLES, Batch, Trained, batches, train
from bench.serving.load import answers, check, compile_tools, write_requests
from bench.serving.process import SERVER_CORE, Failed, Process, free_port
from bench.serving.registry import Registry
from bench.serving.servers import MAIN, PEERS, Place, Server

_INSTALL_TIME = "1 GB, 2 to 10 minutes by your line"


@dataclass(frozen=True)
class Started:
    process: Process
    port: int
    seconds: float
    """Until the first answer."""


@dataclass
class Rig:
    """Everything that the servers of a run share."""

    folder: Path
    model: Path
    tools: Path
    native: Path
    registry: Registry
    trained: Trained
    batches: Mapping[int, Sequence[Batch]]
    """By rows per body."""
    starts: int = 0

    def requests(self, server: Server, rows: int) -> Path:
        """The file of requests for one server."""
        file = self.folder / "requests" / f"{server.name}-{rows}"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            write_requests(file, server, [batch.body(FORMS[server.form]) for batch in self.batches[rows]])
        return file

    @contextmanager
    def running(self, server: Server, environment: Mapping[str, str] | None = None) -> Iterator[Started]:
        """The server, started fresh, on its core, checked against XGBoost.

        Raises:
            Failed: it does not start, or does not answer.
        WrongAnswer: not what XGBoost answers.
        """
        self.starts += 1
        scratch = self.folder / f"start-{self.starts}"
        scratch.mkdir()
        place = Place(free_port(), self.model, scratch, self.registry.url, self.native, self.tools)
        began = time.monotonic()
        known = {**server.environment(place), **(environment or {})}
        process = Process(server.command(place), scratch / "log", SERVER_CORE, known)
        try:
            body = self.batches[1][0].body(FORMS[server.form])
            process.until(lambda: _is_200(server, place.port, body), server.name)
            seconds = time.monotonic() - began
            for each in self.batches.values():
                check(server, place.port, each)
            yield Started(process, place.port, seconds)
        finally:
            process.stop()
            shutil.rmtree(scratch, ignore_errors=True)

    def stop(self) -> None:
        self.registry.stop()


def _is_200(server: Server, port: int, body: bytes) -> bool:
    answer = answers(server, port, body)
    return answer is not None and answer.status_code == 200


def prepare(folder: Path, servers: Sequence[Server]) -> tuple[Rig, dict[str, str]]:
    """Make everything ready.

    Returns:
        The rig, and why a server is left out, by name.
    """
    _need_programs()
    left_out = _environments(servers)
    model = folder / "model"
    trained = train(model)
    native = Path(importlib.util.find_spec("perennial_native").submodule_search_locations[0]).parent  # type: ignore[union-attr,index]
    if any(server.venv for server in servers) and MAIN.exists():
        _prepare_model(model)
    reason = _flatten(model)
    for server in servers:
        if server.needs and not (model / server.needs).exists():
            left_out.setdefault(server.name, reason if server.needs == "flat" else f"{server.needs} could not be made")
    bodies = {1: batches(trained, 1, SINGLES, 7), HUNDRED: batches(trained, HUNDRED, HUNDREDS, 8)}
    tools = compile_tools(folder / "tools")
    registry = Registry(folder / "registry")
    rig = Rig(folder, model, tools, native, registry, trained, bodies)
    try:
        registry.route({registry.register(model / "bundle"): 1.0})
    except BaseException:
        rig.stop()
        raise
    return rig, left_out


def _need_programs() -> None:
    packages = {"wrk": "wrk", "cc": "gcc", "taskset": "util-linux"}
    missing = [package for program, package in packages.items() if shutil.which(program) is None]
    if missing:
        raise Failed(f"the benchmark needs {', '.join(missing)}; next: apt-get install {' '.join(missing)}")


def _environments(servers: Sequence[Server]) -> dict[str, str]:
    """Install the peers' locked environments; why servers must be left out."""
    left_out: dict[str, str] = {}
    wanted = {server.venv for server in servers if server.venv}
    if missing := sorted(str(venv.parent) for venv in wanted if not venv.exists()):
        print(f"installing the peers below {' and '.join(missing)}: {_INSTALL_TIME}, once", file=sys.stderr, flush=True)
    for venv in wanted:
        command = ["uv", "sync", "-q", "--locked", "--project", str(venv.parent), "--python", sys.executable]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["uv failed"]
            left_out |= {s.name: f"its packages cannot be installed: {reason[0]}" for s in servers if s.venv == venv}
    return left_out


def _prepare_model(model: Path) -> None:
    command = [str(MAIN / "bin" / "python"), str(PEERS / "prepare.py"), str(model)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"the model cannot be written in the peers' forms:\n{done.stderr[-1500:]}")


def _flatten(model: Path) -> str:
    """The compiled forest of the model, saved; or why there is none."""
    if importlib.util.find_spec("perennial_native.forest") is None:
        return "this release has no compiled forest (perennial_native.forest)"
    forest = importlib.import_module("perennial_native.forest")
    forest.flatten(json.loads((model / "bare.json").read_bytes())).save(model / "flat")
    return ""
