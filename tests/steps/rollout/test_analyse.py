"""analyse: what the looks at a step of the rollout come to, with a real Prometheus and servers that the test drives."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from perennial_spec import names
from perennial_spec.errors import PlatformError
from perennial_spec.step import Verdict
from perennial_steps import analyse, deploy
from perennial_steps import prometheus as prometheus_module
from perennial_steps.runner import look

QUICK = "{bake: 1500ms, max_bake: 3s, min_requests: 50, abort_on: [{error_rate: 1%}, {latency_p99: 50ms}, {prediction_psi: 0.25}]"
REFERENCE = {"(-inf,0.5]": 0.5, "(0.5,inf)": 0.5}


@pytest.fixture
def canary(watched_rollout, watch):
    """Champion 1 and challenger 2 at 10%, which both servers have loaded."""
    rollout = watched_rollout
    rollout.deployment(QUICK + "}")
    rollout.trained.champion()
    rollout.trained.version()
    deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False))
    for replica in watch.replicas:
        for version in ("1", "2"):
            replica.follow(rollout.name, version, 2)
    watch.until(f'count({names.MODEL_LOADED}{{pipeline="{rollout.name}"}}) == 4')
    return rollout


class Traffic:
    """Requests that come while a block runs."""

    def __init__(self, watch, name: str) -> None:
        self._watch, self._name, self._end = watch, name, threading.Event()
        self._each: list[tuple[str, int, int, float]] = []
        self._live = {"(-inf,0.5]": 5, "(0.5,inf)": 5}

    def of(self, version: str, *, ok: int = 10, failed: int = 0, seconds: float = 0.005) -> Traffic:
        """Per tenth of a second."""
        self._each.append((version, ok, failed, seconds))
        return self

    def moved(self) -> Traffic:
        self._live = {"(-inf,0.5]": 1, "(0.5,inf)": 9}
        return self

    def __enter__(self) -> Traffic:
        self._thread = threading.Thread(target=self._send)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._end.wait(0.1):
            for place, (version, ok, failed, seconds) in enumerate(self._each):
                replica = self._watch.replicas[place % 2]
                replica.answer(self._name, version, ok, seconds=seconds)
                replica.answer(self._name, version, failed, code=500, seconds=seconds)
                live = self._live if version == "2" else {"(-inf,0.5]": 5, "(0.5,inf)": 5}
                replica.predict(self._name, version, live, REFERENCE)


def test_a_challenger_that_holds_passes_with_its_figures(canary, watch, caplog) -> None:
    caplog.set_level(logging.INFO)
    with Traffic(watch, canary.name).of("1").of("2"):
        outcome = look(analyse.run, canary.context("analyse", "2", "1", share=0.1))
    assert outcome.verdict is Verdict.PASS
    assert outcome.summary.startswith(
        "version 2 at 10% holds: error rate 0% <= 1%; latency p99 9.9 ms <= 50 ms; prediction PSI 0.00"
    )
    assert outcome.outputs["requests"] >= 50
    assert outcome.outputs["error_rate"] == 0
    assert outcome.metrics["champion_requests"] >= 50
    assert outcome.failure is None
    assert outcome.outputs["watched_seconds"] >= 1.5
    assert outcome.outputs["standing"] == "pass"
    assert outcome.outputs["prediction_shift"] == pytest.approx(0, abs=0.05)
    assert "the watch of version 2 begins" in caplog.text


def test_errors_abort_before_the_time_is_over(canary, watch) -> None:
    canary.deployment(QUICK.replace("1500ms", "10m") + "}")
    start = time.monotonic()
    with Traffic(watch, canary.name).of("1").of("2", ok=10, failed=10):
        outcome = look(analyse.run, canary.context("analyse", "2", "1", share=0.1))
    assert time.monotonic() - start < 120
    assert outcome.verdict is Verdict.FAIL
    assert "error rate 50% > 1%" in outcome.summary
    assert "Champion: " in (outcome.failure or "")
    assert outcome.outputs["reason"] == outcome.summary


def test_a_slow_challenger_fails(canary, watch) -> None:
    with Traffic(watch, canary.name).of("1").of("2", seconds=0.09):
        outcome = look(analyse.run, canary.context("analyse", "2", "1", share=0.1))
    assert outcome.verdict is Verdict.FAIL
    assert "> 50 ms" in outcome.summary


def test_predictions_far_from_the_reference_fail(canary, watch) -> None:
    with Traffic(watch, canary.name).of("1").of("2").moved():
        outcome = look(analyse.run, canary.context("analyse", "2", "1", share=0.1))
    assert outcome.verdict is Verdict.FAIL
    assert "prediction PSI 0." in outcome.summary
    assert outcome.outputs["prediction_shift"] == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(("then", "verdict"), [("abort", Verdict.INCONCLUSIVE), ("continue", Verdict.PASS)])
def test_too_few_requests_are_watched_longer_and_then_as_the_spec_says(
    canary, watch, then: str, verdict: Verdict
) -> None:
    canary.deployment(f"{QUICK}, on_inconclusive: {then}}}")
    watch.replicas[0].answer(canary.name, "2", 3)
    start = time.monotonic()
    outcome = look(analyse.run, canary.context("analyse", "2", "1", share=0.1))
    assert time.monotonic() - start >= 3
    assert outcome.verdict is verdict
    assert "50 are needed" in outcome.summary
    assert "after 3s" in outcome.summary


def test_requests_that_come_late_are_waited_for(canary, watch) -> None:
    canary.deployment(QUICK.replace("max_bake: 3s", "max_bake: 60s") + "}")

    def later() -> None:
        time.sleep(2.5)
        watch.replicas[0].answer(canary.name, "2", 80)
        watch.replicas[0].predict(canary.name, "2", {"(-inf,0.5]": 40, "(0.5,inf)": 40}, REFERENCE)

    thread = threading.Thread(target=later)
    thread.start()
    outcome = look(analyse.run, canary.context("analyse", "2", "1", share=0.1))
    thread.join()
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["requests"] == 80


def test_the_first_model_is_not_judged_and_needs_no_prometheus(rollout) -> None:
    rollout.trained.version()
    outcome = analyse.run(rollout.context("analyse", "1", None, share=1.0))
    assert outcome.verdict is Verdict.PASS
    assert outcome.summary == "version 1 is not judged: there is no champion to fall back to"


def away(canary, monkeypatch):
    """The same rollout, whose Prometheus does not answer."""
    monkeypatch.setattr(prometheus_module.time, "sleep", lambda _: None)
    return canary.__class__(canary.room.with_platform(prometheus_url="http://127.0.0.1:1"), canary.trained)


def test_while_prometheus_is_away_the_step_is_held_and_then_goes_on(canary, watch, monkeypatch) -> None:
    before = canary.state()
    with Traffic(watch, canary.name).of("1").of("2"):
        first = analyse.run(canary.context("analyse", "2", "1", share=0.1))
        with monkeypatch.context() as patch:
            held = analyse.run(away(canary, patch).context("analyse", "2", "1", first.state, share=0.1))
        assert held.verdict is Verdict.PENDING
        assert held.summary == "version 2 at 10% is held: Prometheus does not answer: [Errno 111] Connection refused"
        assert held.outputs["standing"] == "error"
        assert canary.state() == before
        time.sleep(0.3)
        outcome = look(analyse.run, canary.context("analyse", "2", "1", held.state, share=0.1))
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["held_seconds"] >= 0.3


def test_a_step_that_stays_without_figures_goes_back(canary, monkeypatch) -> None:
    canary.deployment(f"{QUICK}, max_hold: 1s}}")
    dark = away(canary, monkeypatch)
    held = analyse.run(dark.context("analyse", "2", "1", share=0.1))
    assert held.verdict is Verdict.PENDING
    assert held.again_after is not None
    assert 0 < held.again_after <= 1
    outcome = analyse.run(dark.context("analyse", "2", "1", held.state | {"lost": 0.2}, share=0.1))
    assert outcome.verdict is Verdict.PENDING
    outcome = analyse.run(dark.context("analyse", "2", "1", held.state | {"lost": 1.0}, share=0.1))
    assert outcome.verdict is Verdict.FAIL
    assert outcome.outputs["reason"].startswith("version 2 at 10% was without figures for 1s: Prometheus does not")


def test_while_the_registry_is_away_the_step_is_held_too(canary) -> None:
    lost = canary.__class__(canary.room.with_platform(mlflow_url="http://127.0.0.1:1"), canary.trained)
    held = analyse.run(lost.context("analyse", "2", "1", share=0.1))
    assert (held.verdict, held.outputs["standing"]) == (Verdict.PENDING, "error")


def test_what_prometheus_lost_is_not_judged(canary, watch, caplog) -> None:
    """The counters of before are there, their beginning is not: they would all count as if they were of this step."""
    watch.replicas[0].answer(canary.name, "2", 500, code=500)
    watch.until(f'{names.REQUESTS}{{pipeline="{canary.name}", code="500"}} == 500')
    first = analyse.run(canary.context("analyse", "2", "1", share=0.1))
    before_it_knew = first.state | {"since": first.state["since"] - 86_400}
    with Traffic(watch, canary.name).of("1").of("2"):
        outcome = look(analyse.run, canary.context("analyse", "2", "1", before_it_knew, share=0.1))
    assert outcome.verdict is Verdict.PASS
    assert "the watch begins anew" in caplog.text
    assert outcome.outputs["held_seconds"] >= 86_400


def test_hours_in_which_nobody_looked_do_not_make_a_step_inconclusive(canary, watch) -> None:
    """The whole platform was down, or Prometheus: there were no requests, and then there are."""
    first = analyse.run(canary.context("analyse", "2", "1", share=0.1))
    down = first.state | {"looked": first.state["looked"] - 7200}
    time.sleep(3)
    outcome = analyse.run(canary.context("analyse", "2", "1", down, share=0.1))
    assert (outcome.verdict, outcome.outputs["standing"]) == (Verdict.PENDING, "inconclusive")
    assert 7200 - 70 < outcome.state["unseen"] < 7200
    at_once = analyse.run(canary.context("analyse", "2", "1", first.state, share=0.1))
    assert at_once.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("wiped", [False, True])
def test_a_prometheus_that_is_killed_costs_time_and_no_mistake(canary, mortal, caplog, wiped: bool) -> None:
    """The challenger has answered 500 requests with errors before: without the beginning of the watch they would count again."""
    caplog.set_level(logging.INFO)
    watch, server = mortal
    watch.replicas[0].answer(canary.name, "2", 500, code=500)
    watch.until(f'{names.REQUESTS}{{pipeline="{canary.name}", code="500"}} == 500')
    canary.deployment(QUICK.replace("1500ms", "4s").replace("max_bake: 3s", "max_bake: 20s") + "}")
    here = canary.__class__(canary.room.with_platform(prometheus_url=watch.url), canary.trained)
    answers = []

    def look_on() -> None:
        answers.append(look(analyse.run, here.context("analyse", "2", "1", share=0.1)))

    with Traffic(watch, canary.name).of("1").of("2"):
        thread = threading.Thread(target=look_on)
        thread.start()
        time.sleep(2)
        server.end(kill=True)
        if wiped:
            server.wipe()
        time.sleep(1)
        server.start()
        thread.join()
    (outcome,) = answers
    assert outcome.verdict is Verdict.PASS
    assert outcome.outputs["error_rate"] == 0
    assert outcome.outputs["watched_seconds"] >= 4
    assert ("the watch begins anew" in caplog.text) is wiped


def test_a_route_that_was_written_anew_is_watched_anew(canary, watch) -> None:
    first = analyse.run(canary.context("analyse", "2", "1", share=0.1))
    registry = canary.trained.registry
    route = registry.route(canary.name)
    registry.write_route(canary.name, route.moved_to({"1": 1.0}, "ada"))
    registry.write_route(canary.name, registry.route(canary.name).moved_to(route.weights, "ada"))
    second = analyse.run(canary.context("analyse", "2", "1", first.state, share=0.1))
    assert second.state["since"] > first.state["since"]
    assert second.state["revision"] == first.state["revision"] + 2


@pytest.mark.parametrize(
    ("ours", "verdict", "said"),
    [
        (
            (0.70, 0.68, 0.72, 900),
            Verdict.FAIL,
            "roc_auc 0.7 (0.68 to 0.72) is below the champion's 0.75 (0.73 to 0.77)",
        ),
        ((0.72, 0.70, 0.74, 900), Verdict.PASS, "roc_auc 0.72 (0.7 to 0.74), the champion's 0.75 (0.73 to 0.77)"),
        ((0.50, 0.40, 0.60, 30), Verdict.PASS, "roc_auc is not compared: 30 labels of the challenger, 500 are needed"),
    ],
)
def test_quality_is_compared_where_labels_exist(canary, watch, ours, verdict: Verdict, said: str) -> None:
    canary.room.pipeline(
        canary.name, more=f"deployment: {QUICK}}}\nmonitoring: {{quality: {{metric: roc_auc, min: 0.5}}}}\n"
    )
    exporter = watch.replicas[0]
    for version, (value, low, high, labels) in {"1": (0.75, 0.73, 0.77, 5000), "2": ours}.items():
        of = {"pipeline": canary.name, "version": version}
        exporter.gauge(names.QUALITY_LABELS, **of).set(labels)
        for name, end in ((names.QUALITY, value), (names.QUALITY_LOWER, low), (names.QUALITY_UPPER, high)):
            exporter.gauge(name, **of, metric="roc_auc").set(end)
    with Traffic(watch, canary.name).of("1").of("2"):
        outcome = look(analyse.run, canary.context("analyse", "2", "1", share=0.1))
    assert outcome.verdict is verdict
    assert said in outcome.summary
    assert outcome.outputs["quality"] == ours[0]


def test_without_prometheus_it_says_which_setting_is_missing(rollout) -> None:
    rollout.trained.champion()
    rollout.trained.version()
    deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False))
    with pytest.raises(PlatformError, match="PERENNIAL_PROMETHEUS_URL is not set"):
        analyse.run(rollout.context("analyse", "2", "1", share=0.1))


def test_a_version_that_prometheus_never_saw_is_held(watched_rollout) -> None:
    watched_rollout.trained.champion()
    watched_rollout.trained.version()
    deploy.run(watched_rollout.context("deploy", "2", "1", share=0.1, wait=False))
    outcome = analyse.run(watched_rollout.context("analyse", "2", "1", share=0.1))
    assert (outcome.verdict, outcome.outputs["standing"]) == (Verdict.PENDING, "error")
    assert "knows nothing of version 2" in outcome.summary


def test_when_the_champion_has_changed_it_is_judged_and_deployed_again_first(canary) -> None:
    registry, other = canary.trained.registry, canary.trained.version("promoted")
    registry.set_alias(canary.name, names.ALIAS_CHAMPION, other)
    registry.move(canary.name, registry.route(canary.name), {other: 1.0}, "run-3")
    outcome = analyse.run(canary.context("analyse", "2", "1", share=0.1))
    assert (outcome.verdict, outcome.first, outcome.state) == (Verdict.PENDING, "deploy", {})
    assert outcome.summary == "version 2 was judged against 1, champion is 3 now: it is judged again"


def test_a_route_that_a_person_moved_is_not_judged(canary) -> None:
    registry = canary.trained.registry
    registry.write_route(canary.name, registry.route(canary.name).moved_to({"1": 1.0}, "ada"))
    outcome = look(analyse.run, canary.context("analyse", "2", "1", share=0.1))
    assert outcome.verdict is Verdict.FAIL
    assert outcome.failure == "version 2 should have 10% of the traffic, but ada made it 1: 100% (revision 3)"
