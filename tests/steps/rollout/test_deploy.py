"""deploy: the route, and waiting for the model servers as Prometheus sees them."""

from __future__ import annotations

import threading
import time

import pytest

from perennial_spec import names
from perennial_spec.errors import ContractError, MonitoringError, PlatformError, RegistryError
from perennial_spec.step import Verdict
from perennial_steps import deploy


@pytest.fixture
def contest(rollout) -> tuple[str, str]:
    """Champion 1 and challenger 2, which passed."""
    return rollout.trained.champion(), rollout.trained.version()


def test_the_champion_keeps_the_rest_and_its_place(rollout, contest) -> None:
    for share, taken, rest in ((0.1, 0.1, 0.9), ("50%", 0.5, 0.5), (1, 1.0, 0.0)):
        outcome = deploy.run(rollout.context("deploy", "2", "1", share=share, wait=False))
        route = rollout.trained.registry.route(rollout.name)
        assert list(route.weights.items()) == [("1", rest), ("2", taken)]
        assert outcome.outputs == {"model_version": "2", "share": taken, "revision": route.revision}
        assert route.changed_by == "run-1"
    assert rollout.state()["aliases"] == {"champion": "1", "challenger": "2"}


def test_the_first_model_takes_all_at_once(rollout) -> None:
    rollout.trained.version()
    outcome = deploy.run(rollout.context("deploy", "1", None, share=0.1, wait=False))
    assert outcome.outputs == {"model_version": "1", "share": 1.0, "revision": 1}
    assert rollout.state()["weights"] == {"1": 1.0}


def test_deploying_twice_makes_one_revision(rollout, contest) -> None:
    first = deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False))
    assert deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False)) == first
    assert rollout.trained.registry.route(rollout.name).revision == 2


@pytest.mark.parametrize("writes", range(2))
def test_a_kill_before_any_write_leaves_the_traffic_and_is_repaired(
    rollout, contest, killed_after, writes: int
) -> None:
    with killed_after(writes):
        deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False))
    assert rollout.state()["weights"] == {"1": 1.0}
    deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False))
    assert rollout.state()["weights"] == {"1": 0.9, "2": 0.1}


@pytest.mark.parametrize("verdict", ["rejected", "rolled_back", "registered"])
def test_a_version_that_did_not_pass_is_never_deployed(rollout, verdict: str) -> None:
    rollout.trained.champion()
    rollout.trained.version(verdict)
    before = rollout.state()
    outcome = deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False))
    assert outcome.verdict is Verdict.FAIL
    assert outcome.failure == f"version 2 is {verdict}: only a version that passed its gates is deployed"
    assert rollout.state() == before


@pytest.mark.parametrize(("judged", "says"), [("7", "judged against 7"), (None, "judged against none")])
def test_when_the_champion_has_changed_since_the_judgement_it_is_judged_again_first(
    rollout, contest, judged, says: str
) -> None:
    outcome = deploy.run(rollout.context("deploy", "2", judged, share=0.1, wait=False))
    assert (outcome.verdict, outcome.first) == (Verdict.PENDING, "evaluate")
    assert outcome.summary == f"version 2 was {says}, champion is 1 now: it is judged again"
    assert rollout.state()["weights"] == {"1": 1.0}


def test_the_last_judgement_counts_and_not_what_the_run_was_told_at_first(rollout, contest) -> None:
    rollout.trained.registry.tag(rollout.name, "2", names.TAG_JUDGED_AGAINST, "1")
    assert deploy.run(rollout.context("deploy", "2", "7", share=0.1, wait=False)).verdict is Verdict.PASS
    rollout.trained.registry.tag(rollout.name, "2", names.TAG_JUDGED_AGAINST, "")
    assert deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False)).first == "evaluate"


def test_a_third_version_that_is_just_being_promoted_is_waited_for(rollout, contest) -> None:
    third, registry = rollout.trained.version(), rollout.trained.registry
    registry.move(rollout.name, registry.route(rollout.name), {third: 1.0}, "run-3")
    with pytest.raises(
        RegistryError, match=r"version 3 of .* has all of the traffic, and is not champion yet"
    ) as raised:
        deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False))
    assert raised.value.expected == "the end of its promotion by run-3"
    assert rollout.state()["weights"] == {third: 1.0}


def test_a_route_to_something_else_that_somebody_wrote_by_hand_is_taken_over(rollout, contest) -> None:
    third, registry = rollout.trained.version("registered"), rollout.trained.registry
    registry.move(rollout.name, registry.route(rollout.name), {third: 1.0}, "ada")
    assert deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False)).verdict is Verdict.PASS


@pytest.mark.parametrize("share", [-0.1, 1.1, "110%", "half", None, True, [0.1]])
def test_a_share_that_is_none_is_refused(rollout, contest, share) -> None:
    with pytest.raises(ContractError, match="more than 0 and at most 1"):
        deploy.run(rollout.context("deploy", "2", "1", share=share, wait=False))


def test_parameters_are_checked_before_anything_is_written(rollout, contest) -> None:
    with pytest.raises(ContractError, match="parameter 'share'"):
        deploy.run(rollout.context("deploy", "2", "1", wait=False))
    with pytest.raises(ContractError, match="wait is 'perhaps'"):
        deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait="perhaps"))
    with pytest.raises(ContractError, match="timeout is 3"):
        deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False, timeout=3))
    with pytest.raises(PlatformError, match="--param wait=false"):
        deploy.run(rollout.context("deploy", "2", "1", share=0.1))
    assert rollout.state()["weights"] == {"1": 1.0}


def test_a_route_that_cannot_be_read_stops_it(rollout, contest) -> None:
    rollout.trained.registry.rest.post("registered-models/set-tag", name=rollout.name, key=names.TAG_ROUTE, value="{")
    with pytest.raises(RegistryError, match="cannot be read"):
        deploy.run(rollout.context("deploy", "2", "1", share=0.1, wait=False))


# -- waiting for the servers --


def test_it_waits_until_every_replica_has_followed(watched_rollout, contest, watch) -> None:
    name, done = watched_rollout.name, threading.Event()
    context = watched_rollout.context("deploy", "2", "1", share=0.1)

    def deploying() -> None:
        deploy.run(context)
        done.set()

    thread = threading.Thread(target=deploying)
    thread.start()
    for replica in watch.replicas:
        replica.follow(name, "1", 1)
    first, second = watch.replicas
    first.follow(name, "2", 2)
    second.gauge(names.MODEL_LOADED, pipeline=name, version="2").set(
        1
    )  # has loaded it, and not yet taken over the route
    watch.until(f'count({names.MODEL_LOADED}{{pipeline="{name}", version="2"}}) == 2')
    time.sleep(0.6)
    assert not done.is_set()
    second.follow(name, "2", 3)  # a later revision is as good
    thread.join(timeout=30)
    assert done.is_set()


def test_servers_that_do_not_follow_in_time_are_counted(watched_rollout, contest, watch) -> None:
    watch.replicas[0].follow(watched_rollout.name, "2", 2)
    watch.until(f'{names.MODEL_LOADED}{{pipeline="{watched_rollout.name}", version="2"}}')
    with pytest.raises(MonitoringError, match="1 of 2 model servers follow the route, 1 have loaded"):
        deploy.run(watched_rollout.context("deploy", "2", "1", share=0.1, timeout="500ms"))
    assert watched_rollout.state()["weights"] == {"1": 0.9, "2": 0.1}


def test_a_version_that_a_server_refuses_is_taken_out_again(watched_rollout, contest, watch) -> None:
    watch.replicas[0].follow(watched_rollout.name, "2", 2, loaded=0)
    watch.until(f'{names.MODEL_LOADED}{{pipeline="{watched_rollout.name}", version="2"}} == 0')
    outcome = deploy.run(watched_rollout.context("deploy", "2", "1", share=0.1))
    assert outcome.verdict is Verdict.FAIL
    assert "the model servers refuse version 2" in (outcome.failure or "")
    assert watched_rollout.state()["weights"] == {"1": 1.0}


def test_a_first_model_that_a_server_refuses_leaves_an_empty_route(watched_rollout, watch) -> None:
    watched_rollout.trained.version()
    watch.replicas[0].follow(watched_rollout.name, "1", 1, loaded=0)
    watch.until(f'{names.MODEL_LOADED}{{pipeline="{watched_rollout.name}", version="1"}} == 0')
    outcome = deploy.run(watched_rollout.context("deploy", "1", None, share=1))
    assert outcome.verdict is Verdict.FAIL
    assert watched_rollout.state()["weights"] == {}
