"""compare: what a shadow said to the rows that the champion answered, with a real registry, Prometheus and log; and blue/green."""

from __future__ import annotations

import csv
import io
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from server_logs import Log

from perennial_registry import restore
from perennial_spec import names
from perennial_spec.errors import ContractError
from perennial_spec.step import Verdict
from perennial_steps import analyse, compare, deploy, promote, rollback

SHADOW = "{strategy: shadow, bake: 500ms, max_bake: 60s, shadow: {min_rows: 200, disagreements: 3}"


class Shadowed:
    """Champion 1, and challenger 2 as its shadow, which both servers have loaded; and the log of what they said."""

    def __init__(self, rollout: Any, watch: Any) -> None:
        self.rollout, self.watch = rollout, watch
        self.registry = rollout.trained.registry
        self.log = Log(rollout.room.platform, rollout.name)

    def said(self, count: int, difference: float = 0.0, apart: int = 0) -> None:
        """So many rows that both answered a moment ago; the challenger `difference` above, and on `apart` of them on the other side."""
        at = datetime.now(UTC) - timedelta(seconds=1)
        for number in range(count):
            theirs = 0.3 + 0.4 * number / count
            ours = 1 - theirs if number < apart else theirs + difference
            made = self.log.answer(f"e{number}", "1", at, score=theirs)
            row = {**self.log.rows["predictions"][-1], "version": "2", "score": ours, "shadow": True}
            self.log.rows["predictions"].append(row)
            assert row["prediction_id"] == made
        self.log.write()

    def look(self, seconds_ago: float = 30.0, **state: Any) -> Any:
        context = self.rollout.context("compare", "2", "1", shadow=True)
        context.request.state.update({"since": time.time() - seconds_ago, **state})
        return compare.run(context)


@pytest.fixture
def shadowed(watched_rollout: Any, watch: Any) -> Shadowed:
    watched_rollout.deployment(SHADOW + "}")
    made = Shadowed(watched_rollout, watch)
    watched_rollout.trained.champion()
    watched_rollout.trained.version()
    outcome = deploy.run(watched_rollout.context("deploy", "2", "1", shadow=True, wait=False))
    assert outcome.summary == "version 2 shadows the traffic, and answers nobody (revision 2)"
    for replica in watch.replicas:
        for version in ("1", "2"):
            replica.follow(watched_rollout.name, version, 2)
    watch.until(f'count({names.MODEL_LOADED}{{pipeline="{watched_rollout.name}"}}) == 4')
    return made


def test_a_shadow_takes_no_traffic_and_says_so(shadowed: Shadowed) -> None:
    route = shadowed.registry.route(shadowed.rollout.name)
    assert (route.weights, route.shadow) == ({"1": 1.0}, ("2",))
    again = deploy.run(shadowed.rollout.context("deploy", "2", "1", shadow=True, wait=False))
    assert again.outputs == {"model_version": "2", "share": 0.0, "revision": 2}


def test_a_shadow_that_agrees_passes_and_is_promoted_out_of_the_shadow(shadowed: Shadowed) -> None:
    shadowed.said(400, difference=0.001)
    outcome = shadowed.look()
    assert outcome.verdict is Verdict.PASS
    assert outcome.summary.startswith("version 2 as a shadow holds: agreement 9")
    assert "on 400 rows >= 90%; PSI to the champion's predictions 0.0" in outcome.summary
    assert outcome.outputs["rows"] == 400
    assert outcome.outputs["difference"] == pytest.approx(0.001)
    promote.run(shadowed.rollout.context("promote", "2", "1"))
    route = shadowed.registry.route(shadowed.rollout.name)
    assert (route.live, route.shadow) == (("2",), ())


def test_rows_on_which_the_two_are_furthest_apart_are_kept_with_the_version(shadowed: Shadowed) -> None:
    shadowed.said(300, apart=40)
    outcome = shadowed.look()
    assert outcome.verdict is Verdict.FAIL
    assert outcome.failure == outcome.outputs["reason"]
    assert "agreement 86.7% on 300 rows < 90%" in outcome.failure
    run = shadowed.registry.get(shadowed.rollout.name, "2").run_id
    assert f"/runs/{run}/artifacts/shadow/disagreements.csv" in outcome.outputs["disagreements"]
    uri = shadowed.registry.rest.get("runs/get", run_id=run)["run"]["info"]["artifact_uri"]
    path = uri.removeprefix("mlflow-artifacts:/")
    url = f"{shadowed.rollout.trained.url}/api/2.0/mlflow-artifacts/artifacts/{path}/shadow/disagreements.csv"
    rows = list(csv.DictReader(io.StringIO(httpx.get(url, timeout=30).text)))
    assert [row["entity"] for row in rows] == ["e0", "e1", "e2"]
    assert float(rows[0]["difference"]) == pytest.approx(0.4)
    assert set(rows[0]) == {"prediction_id", "entity", "at", "champion", "challenger", "difference", "inputs"}


def test_answers_that_agree_and_lie_elsewhere_fail(shadowed: Shadowed) -> None:
    shadowed.said(600, difference=0.25)
    shadowed.rollout.deployment(SHADOW.replace("min_rows: 200", "min_rows: 200, min_agreement: 10%") + "}")
    outcome = shadowed.look()
    assert outcome.verdict is Verdict.FAIL
    assert "PSI to the champion's predictions" in outcome.summary
    assert "> 0.25" in outcome.summary


def test_too_few_rows_are_watched_on_and_then_as_the_specification_says(shadowed: Shadowed) -> None:
    shadowed.said(20)
    pending = shadowed.look()
    assert pending.verdict is Verdict.PENDING
    assert pending.again_after > 0
    assert pending.outputs["standing"] is Verdict.INCONCLUSIVE
    late = shadowed.look(120.0)
    assert late.verdict is Verdict.INCONCLUSIVE
    assert "20 rows were answered by both, 200 are needed after 1m" in late.summary
    shadowed.rollout.deployment(f"{SHADOW}, on_inconclusive: continue}}")
    assert shadowed.look(120.0).verdict is Verdict.PASS


def test_what_was_answered_before_the_shadow_began_does_not_count(shadowed: Shadowed) -> None:
    shadowed.said(400)
    assert shadowed.look(-60.0).outputs["rows"] == 0


def test_a_shadow_whose_requests_fail_is_out_though_what_it_says_agrees(shadowed: Shadowed) -> None:
    shadowed.said(400)
    began = time.time()
    shadowed.watch.until(f'count({names.MODEL_LOADED}{{pipeline="{shadowed.rollout.name}"}} offset 1s) == 4')
    shadowed.watch.replicas[0].answer(shadowed.rollout.name, "2", 60)
    shadowed.watch.replicas[0].answer(shadowed.rollout.name, "2", 40, code=500)
    shadowed.watch.until(f'sum({names.REQUESTS}{{pipeline="{shadowed.rollout.name}", version="2"}}) == 100')
    outcome = shadowed.look(time.time() - began + 1)
    assert outcome.verdict is Verdict.FAIL
    assert "error rate 40% > 1%" in outcome.summary


def test_a_shadow_that_a_person_ended_is_not_compared(shadowed: Shadowed) -> None:
    registry, name = shadowed.registry, shadowed.rollout.name
    registry.move(name, registry.route(name), {"1": 1.0}, "ada", ["2"])
    outcome = shadowed.look()
    assert outcome.failure == "version 2 is no shadow any more: ada changed the route (revision 3)"


def test_a_rollback_and_a_person_take_the_shadow_out_of_the_route(shadowed: Shadowed) -> None:
    registry, name = shadowed.registry, shadowed.rollout.name
    found = restore.plan(registry, name)
    assert (found.target.version, [left.version for left in found.leaving]) == ("1", ["2"])
    rollback.run(shadowed.rollout.context("rollback", "2", "1"))
    assert registry.route(name).shadow == ()
    assert shadowed.rollout.state()["verdicts"] == {"1": "promoted", "2": "rolled_back"}
    third = shadowed.rollout.trained.version()
    deploy.run(shadowed.rollout.context("deploy", third, "1", shadow=True, wait=False))
    assert registry.route(name).shadow == (third,)
    restore.restore(registry, restore.plan(registry, name), "ann", "no")
    assert registry.route(name).shadow == ()


def test_while_prometheus_is_away_the_shadow_stays_and_then_goes(shadowed: Shadowed) -> None:
    away = shadowed.rollout.__class__(
        shadowed.rollout.room.with_platform(prometheus_url="http://127.0.0.1:1"), shadowed.rollout.trained
    )
    shadowed.said(400)
    context = away.context("compare", "2", "1", shadow=True)
    context.request.state.update({"since": time.time() - 30})
    held = compare.run(context)
    assert held.verdict is Verdict.PENDING
    assert held.outputs["standing"] is Verdict.ERROR
    context.request.state.update({**held.state, "held_since": time.time() - 7 * 3600})
    over = compare.run(context)
    assert over.verdict is Verdict.FAIL
    assert "as a shadow could not be looked at for 6h" in over.summary


def test_the_first_model_has_nobody_to_shadow(rollout: Any) -> None:
    rollout.deployment(SHADOW + "}")
    rollout.trained.version()
    deploy.run(rollout.context("deploy", "1", None, shadow=True, wait=False))
    assert rollout.trained.registry.route(rollout.name).weights == {"1": 1.0}


# -- blue/green --


@pytest.fixture
def green(watched_rollout: Any, watch: Any) -> Any:
    watched_rollout.deployment("{strategy: blue_green, bake: 1500ms, max_bake: 3s, min_requests: 50}")
    watched_rollout.trained.champion()
    watched_rollout.trained.version()
    deploy.run(watched_rollout.context("deploy", "2", "1", share=0, wait=False))
    for replica in watch.replicas:
        for version in ("1", "2"):
            replica.follow(watched_rollout.name, version, 3)
    watch.until(f'count({names.MODEL_LOADED}{{pipeline="{watched_rollout.name}"}} offset 1s) == 4')
    return watched_rollout


def test_green_is_loaded_everywhere_before_it_takes_all_and_blue_stays_loaded(green: Any) -> None:
    registry = green.trained.registry
    assert registry.route(green.name).weights == {"1": 1.0, "2": 0.0}
    outcome = deploy.run(green.context("deploy", "2", "1", share=1, wait=False))
    assert outcome.summary == "version 2 takes 100% of the traffic (revision 3)"
    assert registry.route(green.name).weights == {"1": 0.0, "2": 1.0}
    rollback.run(green.context("rollback", "2", "1"))
    assert registry.route(green.name).live == ("1",)


def test_green_is_judged_against_what_blue_did_before(green: Any, watch: Any) -> None:
    """Blue has no traffic any more: without that, errors that were there before would be the new version's fault."""
    watch.replicas[0].answer(green.name, "1", 100)
    watch.replicas[0].answer(green.name, "1", 10, code=500)
    watch.until(f'sum({names.REQUESTS}{{pipeline="{green.name}", version="1"}}) == 110')
    deploy.run(green.context("deploy", "2", "1", share=1, wait=False))
    context = green.context("analyse", "2", "1", share=1)
    first = analyse.run(context)
    watch.replicas[0].answer(green.name, "2", 100)
    watch.replicas[0].answer(green.name, "2", 3, code=500)
    watch.until(f'sum({names.REQUESTS}{{pipeline="{green.name}", version="2"}}) == 103')
    time.sleep(1.6)
    context.request.state.update(first.state)
    outcome = analyse.run(context)
    assert outcome.metrics["champion_requests"] == 110
    assert (
        outcome.outputs["standing"] is Verdict.INCONCLUSIVE
    )  # beyond the limit, and no worse than blue was: not the model's fault


@pytest.mark.parametrize("share", ["0.0.1", -0.1, 1.1])
def test_a_share_that_is_none_is_refused(green: Any, share: Any) -> None:
    with pytest.raises(ContractError, match="the share of the traffic"):
        deploy.run(green.context("deploy", "2", "1", share=share, wait=False))
