"""An experiment from end to end: a real server deals out the traffic and takes rewards, the steps look at its log, and decide."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.load import load_pipeline
from perennial_spec.platform import Platform
from perennial_spec.step import Reason, StepName, StepRequest, Verdict
from perennial_steps import deploy, experiment, promote
from perennial_steps.context import Outcome, StepContext

SPEC = """\
apiVersion: perennial/v1
name: {name}
owner: {{team: ops, contact: ops@example.com}}
data: {{sources: {{flights: "*.parquet"}}, timestamp: departure, entity: flight_id, label: {{column: late}}}}
model: {{kind: xgboost.classifier}}
evaluation: {{metric: roc_auc, gates: [{{metric: roc_auc, min: 0.6}}]}}
deployment: {{bake: 1s, abort_on: [{{error_rate: 50%}}], strategy: {strategy}, experiment: {{{words}}}}}
"""
QUICK = "attribution: 1s, min_duration: 0s, max_duration: 2m"


class World:
    """Champion 1 and challenger 2 on a server, the steps of their rollout, and clients that are happier with one of them."""

    def __init__(self, server: Any, context: Callable[[StepName], StepContext], happy: dict[str, float]) -> None:
        self._server, self._context, self._happy = server, context, happy
        self._random, self._sent = random.Random(3), 0
        self.answered: Counter[str] = Counter()
        self.batches: list[list[str]] = []

    def deploy(self) -> None:
        context = self._context("deploy")
        context.request.params["share"] = 0.5
        assert deploy.run(context).verdict is Verdict.PASS

    def look(self) -> Outcome:
        return experiment.run(self._context("experiment"))

    def promote(self) -> None:
        assert promote.run(self._context("promote")).verdict is Verdict.PASS

    def ask(self, rows: int, row: dict[str, Any]) -> list[str]:
        """Ask about new entities, one row each; their rewards come at once. Who answered which."""
        sent = [{**row, "flight_id": f"F{self._sent + n}"} for n in range(rows)]
        self._sent += rows
        answer = self._server.invoke(sent, self._server.name).json()
        versions: list[str] = answer["version"]
        rewards = [
            {"prediction_id": id_, "reward": int(self._random.random() < self._happy[version])}
            for id_, version in zip(answer["prediction_id"], versions, strict=True)
        ]
        assert self._server.http.post("/feedback", json={"rewards": rewards}).status_code == 200
        self.answered.update(versions)
        return versions

    def until_followed(self) -> None:
        name = self._server.name
        with Registry(self._server.platform.mlflow_url) as registry:
            revision = registry.route(name).revision
        wait_until(lambda: self._server.revision(name) == revision)

    def until_over(self, row: dict[str, Any]) -> tuple[Outcome, list[Outcome]]:
        """Traffic and looks by turns."""
        looks = []
        for _ in range(40):
            self.batches.append(self.ask(100, row))
            self._server.flushed()
            time.sleep(1.1)
            looks.append(self.look())
            self.until_followed()
            if looks[-1].verdict is not Verdict.PENDING:
                return looks[-1], looks
        pytest.fail(looks[-1].summary)


@pytest.fixture
def world(
    pipeline: Any, bundles: Any, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    monkeypatch.setattr("perennial_steps.experiments.units.MARGIN", timedelta(0))
    processes: list[subprocess.Popen[bytes]] = []

    def make(strategy: str, words: str, happy: dict[str, float]) -> World:
        one, two = (pipeline.register(bundles[name]) for name in ("one", "two"))
        pipeline.route({one: 1.0})
        pipeline.mlflow.champion(pipeline.name, one)
        with Registry(pipeline.mlflow.url) as registry:
            registry.tag(pipeline.name, two, names.TAG_VERDICT, "passed")
        server = serve(pipeline)
        prometheus, process = scraping(tmp_path, server.url)
        processes.append(process)
        folder = tmp_path / "pipelines" / pipeline.name
        folder.mkdir(parents=True)
        text = SPEC.format(name=pipeline.name, strategy=strategy, words=f"{QUICK}{words}")
        (folder / "pipeline.yaml").write_text(text)
        (folder / "features.py").write_text("def features(columns):\n    return {'x': columns['x']}\n")
        platform = Platform(store=server.platform.store, mlflow_url=pipeline.mlflow.url, prometheus_url=prometheus)
        inputs: dict[str, Any] = {"train": {"model_version": two}, "evaluate": {"champion_version": one}}

        def context(step: StepName) -> StepContext:
            reason = Reason(kind="person", summary="by hand")
            request = StepRequest(pipeline=pipeline.name, step=step, run_key="run-1", reason=reason, inputs=inputs)
            return StepContext(request, load_pipeline(folder), platform)

        return World(server, context, happy)

    yield make
    for process in processes:
        process.terminate()
        process.wait(timeout=20)


def scraping(folder: Path, url: str) -> tuple[str, subprocess.Popen[bytes]]:
    """A Prometheus that scrapes the server."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    target = url.removeprefix("http://")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: servers, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    files = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", *files, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    end = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=2).status_code == 200:
                return f"http://127.0.0.1:{port}", process
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, (folder / "prometheus.log").read_text()[-2000:]
        time.sleep(0.05)


def test_an_ab_experiment_finds_the_better_version_and_all_traffic_goes_to_it(world: Any, row: Any) -> None:
    at = world("ab", ", min_count: 50, planned: 500", {"1": 0.2, "2": 0.7})
    at.deploy()
    assert "no answer has been logged since it began" in at.look().summary
    outcome, looks = at.until_over(row)
    assert outcome.verdict is Verdict.PASS
    assert len(looks) > 1
    dealt = {"2": outcome.outputs["challenger"]["dealt"], "1": outcome.outputs["champion"]["dealt"]}
    assert dealt == at.answered
    assert outcome.outputs["challenger"]["mean"] == pytest.approx(0.7, abs=0.15)
    at.promote()
    wait_until(lambda: set(at.ask(50, row)) == {"2"})


def test_a_bandit_finds_the_better_version_and_sends_it_most_of_the_traffic(world: Any, row: Any) -> None:
    at = world("bandit", ", min_count: 50, confidence: 0.999, explore: 5%", {"1": 0.4, "2": 0.55})
    at.deploy()
    at.look()
    outcome, looks = at.until_over(row)
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["probability_best"] >= 0.999
    assert outcome.outputs["share"] == pytest.approx(0.95)
    for before, rows in zip(looks, at.batches[1:], strict=False):
        assert rows.count("2") == pytest.approx(100 * before.outputs["share"], abs=25)  # 5 standard deviations
    counted = outcome.outputs["challenger"]["n"] + outcome.outputs["champion"]["n"]
    assert 0.7 * at.answered.total() < counted <= at.answered.total()  # a reward may be late, on a slow machine
    assert looks[0].outputs["probability_best"] < 0.999
    at.promote()
    wait_until(lambda: set(at.ask(50, row)) == {"2"})


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
