"""The Kubernetes backend against a small API server with one node, which runs each pod's container as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from perennial_operators import build_dags, step
from perennial_operators.contract import build_request
from perennial_spec.load import Pipeline

Install = Callable[[str], None]
Pod = dict[str, Any]
PHASES = {0: "Succeeded"}


class Cluster:
    """What Kubernetes does with a pod that never restarts: runs it, keeps its log and its termination message, deletes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pods: dict[str, Pod] = {}
        self.created: list[Pod] = []
        self.deleted: list[str] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.reason: str | None = None
        """Why the cluster ends containers, when a test wants it to."""

    def create(self, pod: Pod) -> Pod:
        name = pod["metadata"]["name"]
        (container,) = pod["spec"]["containers"]
        told = {entry["name"]: entry["value"] for entry in container["env"]}
        assert told["PERENNIAL_STEP_RESULT_FILE"] == container["terminationMessagePath"]
        told["PERENNIAL_STEP_RESULT_FILE"] = str(self.folder / f"{name}.message")  # the node mounts a file there
        (self.folder / f"{name}.message").touch()
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "perennial_steps"]
            self.processes[name] = subprocess.Popen(command, env={**os.environ, **told}, stdout=log, stderr=log)
        pod["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
        self.created.append(json.loads(json.dumps(pod)))
        self.pods[name] = pod
        return self.read(name)

    def read(self, name: str) -> Pod:
        pod = self.pods[name]
        code = self.processes[name].poll()
        state: Pod = {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}}
        if code is not None:
            message = (self.folder / f"{name}.message").read_text() or (self._log(name)[-2048:] if code else "")
            reason = self.reason or ("Completed" if code == 0 else "Error")
            state = {"terminated": {"exitCode": code % 256, "reason": reason, "message": message}}
        status = {
            "name": "step",
            "state": state,
            "ready": code is None,
            "image": "i",
            "imageID": "i",
            "restartCount": 0,
        }
        phase = "Running" if code is None else PHASES.get(code, "Failed")
        pod["status"] = {"phase": phase, "containerStatuses": [status]}
        return pod

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def log(self, name: str) -> str:
        self.processes[name].wait()
        return "".join(f"{datetime.now(UTC).isoformat()} {line}\n" for line in self._log(name).splitlines())

    def delete(self, name: str) -> Pod:
        self.deleted.append(name)
        self.processes[name].terminate()
        self.processes[name].wait()
        return self.pods.pop(name)


class ApiServer(ThreadingHTTPServer):
    def __init__(self, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", 0), Api)
        self.cluster = cluster


class Api(BaseHTTPRequestHandler):
    """The six calls that Airflow makes."""

    @property
    def cluster(self) -> Cluster:
        return cast("ApiServer", self.server).cluster

    @property
    def name(self) -> str:
        return urlsplit(self.path).path.split("/")[6]

    def do_POST(self) -> None:
        self.answer(self.cluster.create(self.body()))

    def do_PATCH(self) -> None:
        self.cluster.pods[self.name]["metadata"]["labels"] |= self.body()["metadata"]["labels"]
        self.answer(self.cluster.read(self.name))

    def do_DELETE(self) -> None:
        self.answer(self.cluster.delete(self.name))

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        kind, *rest = url.path.split("/")[5:]
        if kind == "events":
            self.answer({"kind": "EventList", "items": []})
        elif not rest:
            self.answer({"kind": "PodList", "items": self.found(parse_qs(url.query)["labelSelector"][0])})
        elif self.name not in self.cluster.pods:
            self.answer({"kind": "Status", "code": 404}, 404)
        else:
            self.answer(self.cluster.log(self.name) if rest[1:] == ["log"] else self.cluster.read(self.name))

    def found(self, selector: str) -> list[Pod]:
        equal = [term for term in selector.split(",") if "!" not in term]
        wanted = dict(term.split("=") for term in equal).items()
        return [
            self.cluster.read(name)
            for name, pod in self.cluster.pods.items()
            if wanted <= pod["metadata"]["labels"].items()
        ]

    def body(self) -> Pod:
        return cast("Pod", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, value: object, code: int = 200) -> None:
        body = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    server = ApiServer(made)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "growth"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(where))
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(tmp_path / "kubeconfig")}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    (tmp_path / "pods.yaml").write_text(
        "{image: 'steps@sha256:1', namespace: growth, environment: {PERENNIAL_STORE: /store}}"
    )
    monkeypatch.setenv("PERENNIAL_BACKEND", "kubernetes")
    monkeypatch.setenv("PERENNIAL_POD_FILE", str(tmp_path / "pods.yaml"))
    yield made
    for process in made.processes.values():
        process.kill()
        process.wait()
    server.shutdown()
    server.server_close()


def the_operator(pipeline: Pipeline) -> Any:
    with DAG("churn", schedule=None):
        return step(pipeline, "train")


def the_context(pushed: dict[str, Any] | None = None, kept: dict[str, Any] | None = None) -> Context:
    pushed, kept = {} if pushed is None else pushed, {} if kept is None else kept
    run = SimpleNamespace(
        run_id="manual__1", run_type=DagRunType.MANUAL, conf=None, logical_date=None, triggering_user_name="ada"
    )
    ti = SimpleNamespace(
        dag_id="churn",
        task_id="train",
        map_index=-1,
        try_number=1,
        xcom_push=lambda key, value: pushed.update({key: value}),
        xcom_pull=lambda **_: None,
    )
    store = SimpleNamespace(get=kept.get, set=kept.__setitem__)
    found = {"dag_run": run, "ti": ti, "run_id": run.run_id, "dag": SimpleNamespace(), "task_state_store": store}
    return cast("Context", found)


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items() if item not in ([], {}, None)}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def test_a_step_runs_in_a_pod_and_its_result_comes_back_without_a_sidecar(
    cluster: Cluster, pipeline: Pipeline, steps_that: Install
) -> None:
    steps_that('print("at work"); done(outputs={"model_version": "7"}, metrics={"auc": 0.8})')
    pushed: dict[str, Any] = {}
    assert the_operator(pipeline).execute_sync(the_context(pushed)) == {"model_version": "7"}
    assert pushed["return_value"] == {"model_version": "7"}
    assert pushed["result"]["metrics"] == {"auc": 0.8}
    (pod,) = cluster.created
    assert [container["name"] for container in pod["spec"]["containers"]] == ["step"]
    assert cluster.deleted == [pod["metadata"]["name"]]


def test_the_pod_that_reaches_the_cluster_is_the_one_of_the_manifest(
    cluster: Cluster, pipeline: Pipeline, steps_that: Install
) -> None:
    """Airflow merges what it adds; nothing of ours may get lost on the way."""
    from perennial_k8s.pod import step_pod
    from perennial_k8s.settings import load_pod_settings

    steps_that("done()")
    task = the_operator(pipeline)
    wanted = step_pod(
        pipeline.spec,
        build_request(task, task.call, the_context()),
        load_pod_settings(Path(os.environ["PERENNIAL_POD_FILE"])),
    )
    task.execute_sync(the_context())
    (pod,) = cluster.created
    assert pod["metadata"]["name"].startswith("churn-train-")
    assert pod["metadata"]["labels"].items() >= wanted["metadata"]["labels"].items()
    assert pod["metadata"]["annotations"] == wanted["metadata"]["annotations"]
    assert without_empty(pod["spec"]) == without_empty(wanted["spec"]) | {"hostNetwork": False}


def test_a_step_that_looks_again_leaves_no_pod_behind_and_finds_its_state(
    cluster: Cluster, pipeline: Pipeline, steps_that: Install
) -> None:
    steps_that("""
        seen = request.state.get("seen", 0) + 1
        done(outputs={"seen": seen}) if seen == 3 else done("pending", again_after=240.0, state={"seen": seen})
    """)
    pushed, kept = dict[str, Any](), dict[str, Any]()
    for look in (1, 2):
        with pytest.raises(TaskDeferred) as left:
            the_operator(pipeline).execute_sync(the_context(pushed, kept))
        assert left.value.method_name == "look_again"
        assert pushed["result"]["verdict"] == "pending"
        assert len(cluster.created) == len(cluster.deleted) == look
    assert the_operator(pipeline).execute_sync(the_context(pushed, kept)) == {"seen": 3}
    assert cluster.pods == {}


def test_a_step_that_is_needed_first_is_a_pod_of_its_own_kind(
    cluster: Cluster, pipeline: Pipeline, steps_that: Install
) -> None:
    steps_that("done()")
    with pytest.raises(TaskDeferred):
        the_operator(pipeline).execute_sync(the_context(kept={"perennial.look": {"state": {}, "first": ["evaluate"]}}))
    (pod,) = cluster.created
    assert pod["metadata"]["name"].startswith("churn-evaluate-")
    assert pod["spec"]["serviceAccountName"].endswith("-evaluate")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ('done("fail", failure="roc_auc 0.61 < 0.70")', AirflowFailException, r"train: fail: roc_auc 0\.61 < 0\.70"),
        ('done("inconclusive")', AirflowFailException, "train: inconclusive: as told"),
        ('done("error", failure="MLflow is away")', AirflowException, "train: error: MLflow is away"),
        (
            'raise ImportError("no such library")',
            AirflowException,
            r"exit code 1 \(Error\) before it could write[\s\S]*no such lib",
        ),
        ("sys.exit(0)", AirflowException, r"exit code 0 \(Completed\) and left no result and no log"),
    ],
)
def test_every_ending_becomes_the_right_failure(
    body: str, kind: type[Exception], message: str, cluster: Cluster, pipeline: Pipeline, steps_that: Install
) -> None:
    steps_that(body)
    with pytest.raises(AirflowException, match=message) as caught:
        the_operator(pipeline).execute_sync(the_context())
    assert type(caught.value) is kind
    assert len(cluster.deleted) == 1


def test_out_of_memory_is_named(cluster: Cluster, pipeline: Pipeline, steps_that: Install) -> None:
    cluster.reason = "OOMKilled"
    steps_that("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(AirflowException, match=r"OOMKilled[\s\S]*raise resources\.train\.memory"):
        the_operator(pipeline).execute_sync(the_context())


def test_killing_the_task_deletes_the_pod(cluster: Cluster, pipeline: Pipeline, steps_that: Install) -> None:
    steps_that("time.sleep(600)")
    task = the_operator(pipeline)

    def kill() -> None:
        until = time.monotonic() + 60
        while task.pod is None and time.monotonic() < until:
            time.sleep(0.02)
        task.on_kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(Exception):  # noqa: B017 (which of Airflow's errors depends on what it was just doing)
        task.execute_sync(the_context())
    killer.join()
    assert len(cluster.deleted) == 1
    assert all(process.poll() is not None for process in cluster.processes.values())


def test_all_steps_of_a_dag_become_pods_and_airflow_can_store_it(cluster: Cluster, pipeline: Pipeline) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    from perennial_operators.kubernetes import KubernetesStepOperator

    dag = build_dags(pipeline.folder.parent)["churn"]
    kinds = {type(found) for found in dag.tasks if found.task_id not in {"begun", "stopped", "promoted"}}
    assert kinds == {KubernetesStepOperator}
    train = cast("Any", dag.get_task("train"))
    assert (train.startup_check_interval_seconds, train.poll_interval) == (1, 1)
    assert (train.deferrable, train.do_xcom_push, train.durable) == (False, False, True)
    assert DagSerialization.serialize_dag(dag)
