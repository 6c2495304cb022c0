"""Models in processes within the server: routes, shadows, bounds, crashes, and the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable
from flavours import Logging

from perennial_serving.processes import Processes
from perennial_spec import logs, names
from perennial_spec.route import point_of

ROW = {"seconds": 0.0, "more": 0.5, "distance": 100.0, "stops": 1, "direct": True, "wind": 3.0}
"""For the sleeping model, and for the bundle `numbers`."""
Register = Callable[[Any], str]


@pytest.fixture(scope="module")
def logging(mlflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Logging:
    return Logging(mlflow.url, tmp_path_factory.mktemp("logging"))


@pytest.fixture(scope="module")
def slow(mlflow: Any, logging: Logging) -> Register:
    """Registers the sleeping model, which is logged once, as a version of a pipeline."""
    logging.slow("slow-origin")
    source = mlflow.post("registered-models/get-latest-versions", name="slow-origin")["model_versions"][0]["source"]

    def register(pipeline: Any) -> str:
        model_id = source.removeprefix("models:/")
        made = mlflow.post("model-versions/create", name=pipeline.name, source=source, model_id=model_id)
        return str(made["model_version"]["version"])

    return register


@pytest.fixture
def served(pipeline: Any, slow: Register, serve: Any) -> Iterator[Any]:
    """Serves the sleeping model alone; `served(**settings)`."""

    def start(**settings: Any) -> Any:
        pipeline.route({slow(pipeline): 1.0})
        return serve(pipeline, **settings)

    yield start


def ask(server: Any, seconds: float) -> httpx.Response:
    return server.invoke([{"seconds": seconds, "more": 0.5}], server.name)  # type: ignore[no-any-return]


def pid(server: Any, version: str = "1") -> int:
    (found,) = server.parts.fleet.served[server.name].models[version].process.pids
    assert isinstance(found, int)
    return found


def gone(process: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True


def test_versions_that_cannot_answer_are_refused_with_the_reason_and_the_route_stays(
    pipeline: Any, bundles: Any, serve: Any, row: Any, logging: Logging, wait: Any
) -> None:
    good = pipeline.register(bundles["one"])
    pipeline.route({good: 1.0})
    server = serve(pipeline)
    unsigned, unsound, lacking = (log(pipeline.name) for log in (logging.unsigned, logging.unsound, logging.lacking))
    pipeline.route({good: 0.4, unsigned: 0.2, unsound: 0.2, lacking: 0.2})
    wait(lambda: len(server.parts.fleet.refused) == 3, 60)
    reasons = {each["version"]: each["reason"] for each in server.http.get("/").json()["refused"]}
    assert "the model has no signature" in reasons[unsigned] and "infer_signature" in reasons[unsigned]
    assert "ArithmeticError: not today" in reasons[unsound]
    assert "No module named 'no_such_library'" in reasons[lacking] and "requirements.txt" in reasons[lacking]
    assert server.metrics()[f'{names.MODEL_LOADED}{{pipeline="{pipeline.name}",version="{unsound}"}}'] == 0
    assert server.revision(pipeline.name) == 1
    assert server.invoke([row], pipeline.name).json()["version"] == [good]
    assert not server.parts.follower.processes._models


def test_a_network_of_pytorch_answers_a_matrix(pipeline: Any, serve: Any, logging: Logging, wait: Any) -> None:
    pytest.importorskip("torch")
    pipeline.route({logging.torch(pipeline.name): 1.0})
    server = serve(pipeline, ready=False)
    wait(lambda: server.http.get("/v2/health/ready").status_code == 200, 90)
    answer = server.http.post("/invocations", json={"inputs": [[1.0, 2.0], [0.5, 0.25]]})
    assert answer.json()["predictions"] == [[21.0, -1.0], [3.0, 0.25]]


def test_rows_without_an_entity_are_shared_out_by_weight_between_a_bundle_and_a_process(
    pipeline: Any, bundles: Any, serve: Any, slow: Register
) -> None:
    bundle, process = pipeline.register(bundles["numbers"]), slow(pipeline)
    pipeline.route({bundle: 0.5, process: 0.5})
    server = serve(pipeline)
    versions = Counter(server.invoke([ROW], pipeline.name).headers["x-perennial-version"] for _ in range(300))
    assert min(versions[bundle], versions[process]) > 105  # 150 +- 5 standard deviations
    answer = server.invoke([{**ROW, "more": n + 0.25} for n in range(40)], pipeline.name).json()
    for n, (version, score) in enumerate(zip(answer["version"], answer["predictions"], strict=True)):
        assert version == bundle or score == n + 0.25
    assert len(set(answer["version"])) == 2


def test_an_entity_that_a_tag_names_keeps_its_version(
    pipeline: Any, bundles: Any, serve: Any, slow: Register, mlflow: Any
) -> None:
    process, bundle = slow(pipeline), pipeline.register(bundles["numbers"])
    mlflow.post("registered-models/set-tag", name=pipeline.name, key=names.TAG_ENTITY, value="other")
    tag = {"key": names.TAG_ENTITY, "value": "customer"}
    mlflow.post(
        "model-versions/set-tag", name=pipeline.name, version=process, **tag
    )  # its own counts before the model's
    route = pipeline.route({process: 0.5, bundle: 0.5})
    server = serve(pipeline)
    customers = [f"C{n}" for n in range(60)]
    answer = server.invoke([{**ROW, "customer": each} for each in customers], pipeline.name).json()
    assert answer["version"] == [route.version_at(point_of(each)) for each in customers]
    server.flushed()
    table = DeltaTable(f"{server.platform.store}/{pipeline.name}/{logs.PREDICTIONS}").to_pyarrow_table().to_pylist()
    assert {each["entity"] for each in table} == set(customers)


def test_an_answer_of_two_forms_is_refused_and_the_request_may_name_a_version(
    pipeline: Any, bundles: Any, serve: Any, logging: Logging
) -> None:
    bundle, rules = pipeline.register(bundles["numbers"]), logging.rules(pipeline.name)
    pipeline.route({bundle: 0.5, rules: 0.5})
    server = serve(pipeline)
    row = {**ROW, "amount": 1.0, "visits": 1, "vip": False}
    answer = server.invoke([row] * 64, pipeline.name)
    assert answer.status_code == 400
    assert "whose answers have not the same form" in answer.json()["message"]
    body = {"dataframe_records": [row] * 64}
    path = f"/pipelines/{pipeline.name}/invocations"
    assert server.http.post(path, json=body, headers={"X-Perennial-Version": rules}).json()["version"] == [rules] * 64


def test_a_shadow_in_a_process_sees_the_rows_and_delays_no_answer(
    pipeline: Any, bundles: Any, serve: Any, slow: Register, wait: Any
) -> None:
    live, shadow = pipeline.register(bundles["numbers"]), slow(pipeline)
    pipeline.route({live: 1.0}, shadow=(shadow,))
    server = serve(pipeline)
    wait(lambda: shadow in server.parts.fleet.served[pipeline.name].models, 30)
    start = time.perf_counter()
    asked = [server.invoke([{**ROW, "seconds": 0.2}] * 2, pipeline.name) for _ in range(5)]
    assert time.perf_counter() - start < 1.0
    assert {each.headers["x-perennial-version"] for each in asked} == {live}
    wait(lambda: server.counters(pipeline.name, shadow).rows == 10, 20)
    server.invoke([{k: v for k, v in ROW.items() if k != "more"}], pipeline.name)
    wait(lambda: server.counters(pipeline.name, shadow).counted.requests.get(("shadow", 400)) == 1, 10)
    server.flushed()
    table = DeltaTable(f"{server.platform.store}/{pipeline.name}/{logs.PREDICTIONS}").to_pyarrow_table().to_pylist()
    scores = {each["prediction_id"]: each["score"] for each in table if each["shadow"]}
    assert scores == {id_: 0.7 for each in asked for id_ in each.json()["prediction_id"]}


def test_a_shadow_in_a_process_keeps_up_with_many_clients(
    pipeline: Any, bundles: Any, serve: Any, logging: Logging, wait: Any
) -> None:
    live, shadow = pipeline.register(bundles["numbers"]), logging.rules(pipeline.name)
    pipeline.route({live: 1.0}, shadow=(shadow,))
    server = serve(pipeline, pyfunc_queue=32)
    wait(lambda: shadow in server.parts.fleet.served[pipeline.name].models, 30)
    rows = [{**ROW, "visits": 1, "vip": True, "amount": 666.0 if n % 50 == 7 else float(n)} for n in range(200)]
    with ThreadPoolExecutor(16) as clients:
        asked = list(clients.map(lambda row: server.invoke([row], pipeline.name).status_code, rows))
    assert asked == [200] * 200
    counters = server.counters(pipeline.name, shadow)
    wait(lambda: counters.rows + counters.counted.requests.get(("shadow", 500), 0) == 200, 20)
    assert counters.rows == 196  # the model fails on four, and on those alone
    assert not server.metrics().get(f'{names.SHADOW_DROPPED}{{pipeline="{pipeline.name}",version="{shadow}"}}')


def test_a_bundle_shadows_a_model_in_a_process(
    pipeline: Any, bundles: Any, serve: Any, slow: Register, wait: Any
) -> None:
    live, shadow = slow(pipeline), pipeline.register(bundles["numbers"])
    pipeline.route({live: 1.0}, shadow=(shadow,))
    server = serve(pipeline)
    wait(lambda: shadow in server.parts.fleet.served[pipeline.name].models, 30)
    assert server.invoke([ROW], pipeline.name).json()["predictions"] == [0.5]
    wait(lambda: server.counters(pipeline.name, shadow).rows == 1, 10)


def test_a_full_queue_is_answered_503_and_later(served: Any) -> None:
    server = served(pyfunc_queue=1, health_query_seconds=0)  # which takes a place, too
    ask(server, 0.0)
    with ThreadPoolExecutor(2) as clients:
        answers = [clients.submit(ask, server, 1.0)]
        time.sleep(0.3)
        answers.append(clients.submit(ask, server, 0.0))
        time.sleep(0.3)
        refused = ask(server, 0.0)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "1 requests with 1 rows wait" in refused.json()["message"]
        assert [each.result().status_code for each in answers] == [200, 200]
    samples = server.metrics()
    assert samples[f'{names.REQUESTS_SHED}{{pipeline="{server.name}"}}'] == 1
    assert (
        samples[f'perennial_requests_total{{pipeline="{server.name}",version="1",protocol="mlflow",code="503"}}'] == 1
    )


def test_a_prediction_that_takes_too_long_is_answered_504_and_the_process_is_started_anew(served: Any) -> None:
    server = served(pyfunc_timeout_seconds=0.5)
    before = pid(server)
    answer = ask(server, 5.0)
    assert (answer.status_code, answer.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
    assert "the model took too long: no answer within 0.5 s" in answer.json()["message"]
    assert gone(before)
    server.parts.fleet.served[server.name].models[
        "1"
    ].process._calls._seconds = 30.0  # a process takes seconds to start
    assert ask(server, 0.0).json()["predictions"] == [0.5]
    assert pid(server) != before


def test_a_crash_fails_the_calls_in_flight_alone(served: Any) -> None:
    server = served()
    before = pid(server)
    with ThreadPoolExecutor(4) as clients:
        asleep = clients.submit(ask, server, 1.0)
        time.sleep(0.3)
        waiting = [clients.submit(ask, server, 0.0) for _ in range(3)]
        time.sleep(0.3)
        os.kill(before, signal.SIGKILL)
        failed = asleep.result()
        assert (failed.status_code, failed.headers["retry-after"]) == (503, "1")
        assert "the process that answered ended: signal SIGKILL" in failed.json()["message"]
        assert [each.result().status_code for each in waiting] == [200] * 3
    assert pid(server) != before


def test_a_process_ends_when_its_version_is_unloaded(
    pipeline: Any, bundles: Any, serve: Any, slow: Register, wait: Any
) -> None:
    old, new = slow(pipeline), pipeline.register(bundles["numbers"])
    pipeline.route({old: 1.0})
    server = serve(pipeline, grace_seconds=0.3)
    process = pid(server, old)
    pipeline.route({new: 1.0})
    server.until_revision(pipeline)
    wait(lambda: gone(process), 20)
    assert server.invoke([ROW], pipeline.name).json()["version"] == [new]


def test_a_process_stands_by_as_long_as_a_rollback_would_go_back_to_it(
    pipeline: Any, bundles: Any, serve: Any, slow: Register, wait: Any
) -> None:
    old, new = slow(pipeline), pipeline.register(bundles["numbers"])
    pipeline.route({old: 1.0})
    server = serve(pipeline, grace_seconds=0.0)
    process = pid(server, old)
    alias = {"name": pipeline.name, "alias": names.ALIAS_PREVIOUS}
    pipeline.mlflow.post("registered-models/alias", **alias, version=old)
    pipeline.route({new: 1.0})
    server.until_revision(pipeline)
    wait(lambda: (pipeline.name, old) in server.parts.follower._standby, 20)
    assert not gone(process)
    pipeline.mlflow.post("registered-models/alias", **alias, version=new)
    wait(lambda: gone(process), 20)


def test_a_start_that_waits_for_its_process_ends_with_the_server(
    pipeline: Any, slow: Register, serve: Any, wait: Any
) -> None:
    pipeline.route({slow(pipeline): 1.0})
    server = serve(pipeline, ready=False)
    processes: Processes = server.parts.follower.processes
    wait(lambda: processes._tasks, 30)
    server.stop()
    assert not processes._tasks and not processes._models
    wait(lambda: not any(thread.is_alive() for thread in server.parts.follower._loaders._threads), 10)


PROGRAM = """
import atexit, sys
heavy = {"mlflow", "pandas", "sklearn", "lightgbm", "xgboost"}
atexit.register(lambda: print("IMPORTED", *sorted(heavy & set(sys.modules)), file=sys.stderr))
from perennial_serving.__main__ import main
sys.exit(main())
"""


class Process:
    """The server as a process of its own."""

    def __init__(self, root: Path, name: str, url: str) -> None:
        known = {key: value for key, value in os.environ.items() if not key.startswith(("PERENNIAL_", "MLFLOW_"))}
        known |= {"PERENNIAL_PORT": "0", "PERENNIAL_HOME": str(root), "PERENNIAL_STORE": str(root / "store")}
        known |= {"MLFLOW_TRACKING_URI": url, "PERENNIAL_SERVING_PIPELINES": name}
        command = [sys.executable, "-c", PROGRAM]
        self._process = subprocess.Popen(command, env=known, stderr=subprocess.PIPE, text=True, cwd=root)
        self._lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self._lines.extend(iter(self._process.stderr.readline, ""))

    @property
    def said(self) -> str:
        return "".join(self._lines)

    @property
    def url(self) -> str:
        found = re.search(r"listening on (http://\S+)", self.said)
        return found[1] if found else ""

    def answers(self) -> bool:
        body = {"inputs": {"seconds": 0.0, "more": 0.5}}
        try:
            return bool(self.url) and httpx.post(f"{self.url}/invocations", json=body).json()["predictions"] == [0.5]
        except (httpx.HTTPError, KeyError):
            return False

    def children(self) -> list[int]:
        file = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        return [int(each) for thread in threads for each in (thread / file.name).read_text().split()]

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        return self._process.wait(30)


def test_the_server_imports_no_model_library_and_takes_its_processes_with_it(
    pipeline: Any, slow: Register, mlflow: Any, tmp_path: Path, wait: Any
) -> None:
    pipeline.route({slow(pipeline): 1.0})
    server = Process(tmp_path, pipeline.name, mlflow.url)
    wait(server.answers, 60)
    children = server.children()
    assert len(children) == 2  # the log's writer, and the model
    assert server.end(signal.SIGTERM) == 0
    wait(lambda: "IMPORTED\n" in server.said, 10)
    assert "Traceback" not in server.said
    wait(lambda: all(map(gone, children)), 10)
    # Started again without a registry, it has all that it needs; and killed in the middle of a prediction, it leaves nothing behind.
    server = Process(tmp_path, pipeline.name, "http://127.0.0.1:9")
    wait(server.answers, 60)
    children = server.children()
    threading.Thread(target=_ignored, args=(server.url,), daemon=True).start()
    time.sleep(0.5)
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    wait(lambda: all(map(gone, children)), 15)


def _ignored(url: str) -> None:
    try:
        httpx.post(f"{url}/invocations", json={"inputs": {"seconds": 60.0, "more": 0.5}}, timeout=60)
    except httpx.HTTPError:
        return
