"""Following the registry: routes change without a lost request, bad versions never serve, and an absent registry is no outage."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from perennial_features.bundle import Bundle
from perennial_spec import names
from perennial_spec.route import RateArm, Route


class Load:
    """Clients that ask without a pause, and remember every answer."""

    def __init__(self, url: str, name: str, row: dict[str, Any], clients: int = 3) -> None:
        self.path = f"{url}/pipelines/{name}/invocations"
        self.row = row
        self.codes: Counter[int] = Counter()
        self.versions: dict[str, set[str]] = {}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(place,)) for place in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, place: int) -> None:
        with httpx.Client(timeout=30) as client:
            turn = 0
            while not self._stop.is_set():
                turn += 1
                rows = [{**self.row, "flight_id": f"F{place}-{(turn * 4 + n) % 200}"} for n in range(4)]
                try:
                    answer = client.post(self.path, json={"dataframe_records": rows})
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                self.codes[answer.status_code] += 1
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                for row, version in zip(rows, answer.json()["version"], strict=True):
                    self.versions.setdefault(row["flight_id"], set()).add(version)


def test_a_rollout_and_a_rollback_under_load_lose_no_request(
    pipeline: Any, bundles: Any, serve: Any, row: Any, wait: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0})
    server = serve(pipeline)
    routes: list[Route] = []
    with Load(server.url, pipeline.name, row) as load:
        for weights in ({old: 0.9, new: 0.1}, {old: 0.5, new: 0.5}, {old: 1.0}, {old: 0.5, new: 0.5}, {new: 1.0}):
            routes.append(pipeline.route(weights))
            server.until_revision(pipeline)
            seen = sum(load.codes.values())
            wait(lambda seen=seen: sum(load.codes.values()) > seen + 50 or load.failures, 30)
    assert not load.failures
    assert set(load.codes) == {200}
    # Every entity was only ever answered by versions that one of the routes gives it.
    for entity, versions in load.versions.items():
        allowed = {old} | {route.version_at(names_point(entity)) for route in routes}
        assert versions <= allowed
    assert set().union(*load.versions.values()) == {old, new}


def names_point(entity: str) -> float:
    from perennial_spec.route import point_of

    return point_of(entity)


def test_an_entity_keeps_its_version_and_both_protocols_agree(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    route = pipeline.route({old: 0.6, new: 0.4})
    server = serve(pipeline)
    rows = [{**row, "flight_id": f"F{n}", "distance": 10.0 * n} for n in range(200)]
    answer = server.invoke(rows, pipeline.name)
    versions = answer.json()["version"]
    assert versions == [route.version_at(names_point(each["flight_id"])) for each in rows]
    assert set(answer.headers["X-Perennial-Version"].split(",")) == {old, new}
    assert server.invoke(rows[::-1], pipeline.name).json()["version"] == versions[::-1]
    # Each row's score is its own version's, in the rows' order.
    models = {old: Bundle.load(bundles["one"]), new: Bundle.load(bundles["two"])}
    expected = [models[v].predict(models[v].columns([each]))[0] for v, each in zip(versions, rows, strict=True)]
    assert answer.json()["predictions"] == expected
    # 7, 7.0 and "7" are one entity.
    same = [{**row, "flight_id": value} for value in (7, 7.0, "7")]
    assert len(set(server.invoke(same, pipeline.name).json()["version"])) == 1


def test_rows_without_an_entity_are_shared_out_by_weight(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 0.5, new: 0.5})
    server = serve(pipeline)
    del row["flight_id"]
    counts = Counter(server.invoke([row] * 400, pipeline.name).json()["version"])
    assert min(counts[old], counts[new]) > 120  # 200 +- 8 standard deviations


def test_a_damaged_bundle_is_refused_and_the_last_good_route_holds(
    pipeline: Any, bundles: Any, serve: Any, row: Any, wait: Any, tmp_path: Path
) -> None:
    good = pipeline.register(bundles["one"])
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in bundles["two"].iterdir():
        if file.is_file():
            (damaged / file.name).write_bytes(file.read_bytes())
    smoke = json.loads((damaged / "smoke.json").read_text())
    (damaged / "smoke.json").write_text(json.dumps({**smoke, "predictions": [0.5] * len(smoke["predictions"])}))
    bad = pipeline.register(damaged)
    pipeline.route({good: 1.0})
    server = serve(pipeline)
    pipeline.route({good: 0.5, bad: 0.5})
    loaded = f'{names.MODEL_LOADED}{{pipeline="{pipeline.name}",version="%s"}}'
    wait(lambda: server.metrics().get(loaded % bad) == 0.0, 30)
    assert server.metrics()[loaded % good] == 1.0
    assert server.revision(pipeline.name) == 1
    answers = server.invoke([{**row, "flight_id": str(n)} for n in range(50)], pipeline.name)
    assert set(answers.json()["version"]) == {good}
    assert server.http.get("/v2/health/ready").status_code == 200
    (refused,) = server.http.get("/").json()["refused"]
    assert (refused["version"], "smoke.json has changed" in refused["reason"]) == (bad, True)
    # Taken out of the route again, nobody waits for it any more.
    pipeline.route({good: 1.0})
    server.until_revision(pipeline)
    wait(lambda: loaded % bad not in server.metrics(), 10)


def test_answers_that_differ_from_training_refuse_the_version(
    pipeline: Any, bundles: Any, serve: Any, wait: Any, tmp_path: Path
) -> None:
    import hashlib

    other = tmp_path / "other"
    other.mkdir()
    for file in bundles["two"].iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    code = (
        (other / "features.py").read_text().replace('np.log1p(np.abs(columns["distance"]))', 'columns["distance"] * 7')
    )
    (other / "features.py").write_text(code.replace('"stops": columns["stops"]', '"stops": 2 - columns["stops"]'))
    manifest = json.loads((other / "bundle.json").read_text())
    manifest["digests"]["features.py"] = hashlib.sha256((other / "features.py").read_bytes()).hexdigest()
    (other / "bundle.json").write_text(json.dumps(manifest))
    pipeline.route({pipeline.register(other): 1.0})
    server = serve(pipeline, ready=False)
    wait(lambda: "refused" in server.parts.fleet.waiting.get(pipeline.name, ""), 30)
    assert "answers its own training rows differently" in next(iter(server.parts.fleet.refused.values()))
    assert server.http.get("/v2/health/ready").status_code == 503
    answer = server.http.post("/invocations", json={"inputs": {}}, headers={"X-Perennial-Pipeline": pipeline.name})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "version 1 is refused" in answer.json()["message"]


def test_a_version_without_a_bundle_is_refused(pipeline: Any, mlflow: Any, bundles: Any, serve: Any, wait: Any) -> None:
    version = pipeline.register(bundles["one"])
    mlflow.post(
        "model-versions/set-tag", name=pipeline.name, version=version, key=names.TAG_BUNDLE_URI, value="s3://x/y"
    )
    pipeline.route({version: 1.0})
    server = serve(pipeline, ready=False)
    wait(lambda: server.parts.fleet.refused, 30)
    assert names.TAG_BUNDLE_URI in next(iter(server.parts.fleet.refused.values()))


def test_a_bundle_larger_than_the_limit_is_refused(pipeline: Any, bundles: Any, serve: Any, wait: Any) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, ready=False, max_bundle_bytes=1000)
    wait(lambda: server.parts.fleet.refused, 30)
    assert "too large" in next(iter(server.parts.fleet.refused.values()))


@pytest.mark.parametrize(
    "tag", ["", "{", '{"weights": {"1": 0.5}}', '{"weights": {"../x": 1.0}}', '{"weights": {"1": 1.0}, "x": 1}']
)
def test_a_route_that_is_not_understood_leaves_the_last_in_force(
    pipeline: Any, mlflow: Any, bundles: Any, serve: Any, row: Any, tag: str
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline)
    mlflow.post("registered-models/set-tag", name=pipeline.name, key=names.TAG_ROUTE, value=tag)
    before = server.metrics()
    assert before[names.REGISTRY_UP] == 1
    server.parts.follower._look()
    assert server.revision(pipeline.name) == 1
    assert server.invoke([row], pipeline.name).status_code == 200


def test_without_the_registry_the_last_route_answers_and_a_restart_too(
    pipeline: Any, bundles: Any, serve: Any, row: Any, cable: Any, wait: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 0.5, new: 0.5})
    pipeline.mlflow.champion(pipeline.name, old)
    server = serve(pipeline, url=cable.url)
    wait(lambda: server.parts.fleet.served[pipeline.name].champion == old, 10)
    rows = [{**row, "flight_id": f"F{n}"} for n in range(40)]
    before = server.invoke(rows, pipeline.name).json()
    assert server.metrics()[names.REGISTRY_UP] == 1
    cable.cut()
    wait(lambda: server.metrics()[names.REGISTRY_UP] == 0, 30)
    during = server.invoke(rows, pipeline.name).json()
    server.stop()
    again = serve(pipeline, url=cable.url)
    after = again.invoke(rows, pipeline.name).json()
    for found in (during, after):
        assert (found["predictions"], found["version"]) == (before["predictions"], before["version"])
    samples = again.metrics()
    assert samples[names.REGISTRY_UP] == 0
    assert samples[f'{names.CHAMPION}{{pipeline="{pipeline.name}",version="{old}"}}'] == 1
    # And follows again once the registry is back.
    pipeline.route({new: 1.0})
    cable.mend()
    again.until_revision(pipeline)
    assert set(again.invoke(rows, pipeline.name).json()["version"]) == {new}


def test_a_first_start_without_the_registry_is_alive_and_not_ready(
    pipeline: Any, serve: Any, row: Any, cable: Any
) -> None:
    cable.cut()
    server = serve(pipeline, url=cable.url, ready=False)
    assert server.http.get("/v2/health/live").status_code == 200
    assert server.http.get("/v2/health/ready").status_code == 503
    answer = server.invoke([row], pipeline.name)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_download_that_breaks_off_is_no_verdict_on_the_version(
    pipeline: Any, bundles: Any, serve: Any, row: Any, cable: Any, wait: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0})
    server = serve(pipeline, url=cable.url)
    follower = server.parts.follower
    fetch = follower._fetch

    def broken(uri: str, folder: Path) -> None:
        cable.cut()
        fetch(uri, folder)

    follower._fetch = broken
    pipeline.route({new: 1.0})
    wait(lambda: server.metrics()[names.REGISTRY_UP] == 0, 30)
    assert not server.parts.fleet.refused
    assert server.invoke([row], pipeline.name).json()["version"] == [old]
    follower._fetch = fetch
    cable.mend()
    server.until_revision(pipeline)
    assert server.invoke([row], pipeline.name).json()["version"] == [new]


def test_a_version_that_left_the_route_stays_for_its_grace_and_then_goes(
    pipeline: Any, bundles: Any, serve: Any, row: Any, wait: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0})
    server = serve(pipeline, grace_seconds=1.0)
    pipeline.route({new: 1.0})
    server.until_revision(pipeline)
    asked = {
        "inputs": [
            {"name": n, "datatype": t, "shape": [1], "data": [row[n]]}
            for n, t in (
                ("departure", "BYTES"),
                ("distance", "FP32"),
                ("stops", "INT8"),
                ("direct", "BOOL"),
                ("carrier", "BYTES"),
            )
        ]
    }
    path = f"/v2/models/{pipeline.name}/versions/{old}/infer"
    assert server.http.post(path, json=asked).json()["model_version"] == old
    wait(lambda: server.http.post(path, json=asked).status_code == 404, 30)
    assert server.http.get("/").json()["pipelines"][0]["loaded"] == [new]


class NotLoaded(Exception):
    pass


def load_nothing(*_: object) -> None:
    raise NotLoaded


def loaded(server: Any) -> list[str]:
    found: list[str] = server.http.get("/").json()["pipelines"][0]["loaded"]
    return found


def previous(pipeline: Any, version: str) -> None:
    alias = {"name": pipeline.name, "alias": names.ALIAS_PREVIOUS, "version": version}
    pipeline.mlflow.post("registered-models/alias", **alias)


def test_the_version_that_a_rollback_goes_back_to_stands_by_and_is_not_loaded_again(
    pipeline: Any, bundles: Any, serve: Any, row: Any, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0})
    server = serve(pipeline, grace_seconds=0.0)
    before = server.invoke([row], pipeline.name).json()["predictions"]
    previous(pipeline, old)
    pipeline.route({new: 1.0})
    server.until_revision(pipeline)
    wait(lambda: loaded(server) == [new], 30)
    assert f'{names.MODEL_LOADED}{{pipeline="{pipeline.name}",version="{old}"}}' not in server.metrics()
    monkeypatch.setattr(server.parts.follower, "_fetch_and_load", load_nothing)
    pipeline.route({old: 1.0})
    server.until_revision(pipeline)
    answer = server.invoke([row], pipeline.name).json()
    assert (answer["version"], answer["predictions"]) == ([old], before)
    assert server.counters(pipeline.name, old).rows == 1, "it begins anew, as a version that is loaded"


def test_it_stands_by_after_a_start_too_and_only_as_long_as_it_is_the_one(
    pipeline: Any, bundles: Any, serve: Any, wait: Any
) -> None:
    first, second, third = (pipeline.register(bundles[name]) for name in ("one", "two", "one"))
    pipeline.route({third: 1.0})
    previous(pipeline, second)
    server = serve(pipeline, grace_seconds=0.0)
    standby = server.parts.follower._standby
    wait(lambda: (pipeline.name, second) in standby, 30)
    wait(lambda: loaded(server) == [third], 10)
    previous(pipeline, first)
    wait(lambda: (pipeline.name, first) in standby, 30)
    assert (pipeline.name, second) not in standby


def test_without_standby_it_is_unloaded_like_any_other(pipeline: Any, bundles: Any, serve: Any, wait: Any) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0})
    server = serve(pipeline, grace_seconds=0.0, standby=False)
    previous(pipeline, old)
    pipeline.route({new: 1.0})
    server.until_revision(pipeline)
    wait(lambda: loaded(server) == [new], 30)
    assert (pipeline.name, old) not in server.parts.follower._standby


def test_a_version_with_weight_0_is_loaded_before_it_takes_traffic(
    pipeline: Any, bundles: Any, serve: Any, row: Any, wait: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0, new: 0.0})
    server = serve(pipeline)
    wait(lambda: server.http.get(f"/v2/models/{pipeline.name}/versions/{new}/ready").status_code == 200, 30)
    assert server.invoke([row] * 50, pipeline.name).headers["X-Perennial-Version"] == old


def test_a_route_without_weights_stops_the_pipeline_with_503(pipeline: Any, bundles: Any, serve: Any, row: Any) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline)
    pipeline.route({})
    server.until_revision(pipeline)
    answer = server.invoke([row], pipeline.name)
    assert answer.status_code == 503
    assert "no version takes traffic" in answer.json()["message"]


def test_a_shadow_sees_the_traffic_and_never_answers(
    pipeline: Any, bundles: Any, serve: Any, row: Any, wait: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["fragile"])
    pipeline.route({old: 1.0}, shadow=(new,))
    server = serve(pipeline)
    wait(lambda: new in server.parts.fleet.served[pipeline.name].models, 30)
    assert server.invoke([row, row], pipeline.name).json()["version"] == [old, old]
    wait(lambda: server.counters(pipeline.name, new).rows == 2, 10)
    assert server.invoke([{**row, "distance": 666.0}], pipeline.name).status_code == 200
    wait(lambda: server.counters(pipeline.name, new).counted.requests.get(("shadow", 500)) == 1, 10)


def test_a_pipeline_that_cannot_serve_leaves_the_others_ready(
    pipeline: Any, mlflow: Any, bundles: Any, serve: Any, row: Any, wait: Any
) -> None:
    broken, late = (type(pipeline)(f"{pipeline.name}-{suffix}", mlflow) for suffix in ("b", "c"))
    for each in (broken, late):
        mlflow.create(each.name)
        each.register(bundles["one"])
    mlflow.post("model-versions/set-tag", name=broken.name, version="1", key=names.TAG_BUNDLE_URI, value="")
    broken.route({"1": 1.0})
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, broken, late)
    assert server.invoke([row], pipeline.name).status_code == 200
    assert server.invoke([row], broken.name).status_code == 503
    assert server.http.get(f"/v2/models/{broken.name}/ready").status_code == 503
    ready: list[int] = []
    late.route({"1": 1.0})

    def answers() -> bool:
        ready.append(server.http.get("/v2/health/ready").status_code)
        return bool(server.invoke([row], late.name).status_code == 200)

    wait(answers, 30)
    assert set(ready) == {200}


def test_a_bandit_sends_most_rows_to_the_version_that_is_likely_the_best(
    pipeline: Any, bundles: Any, serve: Any, row: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    arms = {old: RateArm(successes=100, failures=900), new: RateArm(successes=300, failures=700)}
    pipeline.mlflow.route(pipeline.name, Route(revision=1, weights={old: 0.9, new: 0.1}).with_arms(arms, "x"))
    server = serve(pipeline)
    versions = Counter(server.invoke([row] * 100, pipeline.name).json()["version"])
    versions.update(server.invoke([row], pipeline.name).headers["x-perennial-version"] for _ in range(20))
    assert versions == {new: 120}


def test_looks_that_bring_nothing_new_cost_no_work_and_are_counted(
    pipeline: Any, bundles: Any, serve: Any, cable: Any, wait: Any
) -> None:
    old, new = pipeline.register(bundles["one"]), pipeline.register(bundles["two"])
    pipeline.route({old: 1.0})
    server = serve(pipeline, url=cable.url)

    def polls() -> dict[str, float]:
        samples = server.metrics()
        return {
            each: samples[f'{names.REGISTRY_POLLS}{{outcome="{each}"}}'] for each in ("unchanged", "changed", "failed")
        }

    follower, fleet = server.parts.follower, server.parts.fleet
    settled: list[bool] = []
    settle = follower._settle

    def counted() -> None:
        settled.append(True)
        settle()

    follower._settle = counted
    served, listing, start = fleet.served, follower._wanted[pipeline.name], polls()
    wait(lambda: polls()["unchanged"] >= start["unchanged"] + 10, 30)
    assert (fleet.served is served, follower._wanted[pipeline.name] is listing, settled) == (True, True, [])
    assert abs(server.metrics()[names.REGISTRY_ANSWERED] - time.time()) < 5
    pipeline.route({old: 0.5, new: 0.5})
    server.until_revision(pipeline)
    now = polls()
    assert (now["changed"], now["failed"]) == (start["changed"] + 1, 0)
    assert fleet.served[pipeline.name].models[old] is served[pipeline.name].models[old]
    cable.cut()
    wait(lambda: polls()["failed"] >= 1, 30)
    answered = server.metrics()[names.REGISTRY_ANSWERED]
    cable.mend()
    wait(lambda: server.metrics()[names.REGISTRY_ANSWERED] > answered, 30)
    assert polls()["changed"] == now["changed"]


def test_a_registry_that_turns_hostile_leaves_the_route_in_force_and_is_asked_ever_less(
    pipeline: Any, bundles: Any, serve: Any, row: Any, cable: Any, wait: Any
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, url=cable.url, registry_timeout=0.3, poll_max_seconds=1.0)
    asked: list[float] = []

    def dribble(listener: socket.socket) -> None:
        for _ in range(4):
            sock, _ = listener.accept()
            with sock, suppress(OSError):
                sock.recv(65536)
                asked.append(time.monotonic())
                sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                while sock.send(b"a"):
                    time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as hostile:
        threading.Thread(target=dribble, args=(hostile,), daemon=True).start()
        cable.turn(hostile.getsockname()[1])
        wait(lambda: len(asked) == 4, 30)
        assert server.invoke([row], pipeline.name).status_code == 200
        assert server.metrics()[names.REGISTRY_UP] == 0
    cable.turn(pipeline.mlflow.port)
    pipeline.route({})
    server.until_revision(pipeline)
