"""experiment: what a look comes to, with a real registry, Prometheus and log."""

from __future__ import annotations

import json
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from server_logs import Log

from perennial_spec import names
from perennial_spec.route import MeanArm, RateArm
from perennial_spec.step import Verdict
from perennial_steps import deploy, experiment, promote, rollback

HOUR = timedelta(hours=1)
AB = "strategy: ab, bake: {bake}, experiment: {{min_duration: 2h, max_duration: 12h, planned: 2000"


class Ab:
    """Champion 1 and challenger 2 that each take half of the entities, and the log of what they answered."""

    def __init__(self, rollout: Any, watch: Any) -> None:
        self.rollout, self.watch = rollout, watch
        self.registry = rollout.trained.registry
        self.log = Log(rollout.room.platform, rollout.name)

    def spec(self, more: str = "", rest: str = "", bake: str = "500ms") -> None:
        self.rollout.deployment(f"{{{AB.format(bake=bake)}{more}}}{rest}}}")

    def begin(self, ago: timedelta) -> datetime:
        """As if the first look had been so long ago."""
        since = datetime.now(UTC) - ago
        record = {"strategy": "ab", "run_key": "run-1", "champion": "1", "since": since.isoformat()}
        self.registry.tag(self.rollout.name, "2", names.TAG_EXPERIMENT, json.dumps(record))
        return since

    def answers(self, since: datetime, ours: float, theirs: float, *, each: int = 1_500, spare: int = 0) -> None:
        """So many entities of each version, less `spare` of the challenger's; the share that each version's rewards are 1."""
        rng = random.Random(9)
        for version, rate in (("2", ours), ("1", theirs)):
            for number in range(each - spare * (version == "2")):
                made = since + timedelta(seconds=rng.randrange(3_000))
                id_ = self.log.answer(f"{version}-{number}", version, made, score=0.5 + 0.4 * rate)
                self.log.reward(id_, float(rng.random() < rate), made + timedelta(seconds=5))
                self.log.label(1.0, made + timedelta(seconds=5), prediction_id=id_)
        self.log.write()

    def look(self, **state: Any) -> Any:
        context = self.rollout.context("experiment", "2", "1")
        context.request.state.update(state)
        return experiment.run(context)

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.registry.get(self.rollout.name, "2").tags[names.TAG_EXPERIMENT])
        return found


@pytest.fixture
def ab(watched_rollout, watch) -> Ab:
    made = Ab(watched_rollout, watch)
    made.spec()
    watched_rollout.trained.champion()
    watched_rollout.trained.version()
    deploy.run(watched_rollout.context("deploy", "2", "1", share=0.5, wait=False))
    for replica in watch.replicas:
        for version in ("1", "2"):
            replica.follow(watched_rollout.name, version, 2)
    watch.until(f'count({names.MODEL_LOADED}{{pipeline="{watched_rollout.name}"}}) == 4')
    watch.until(f'count({names.MODEL_LOADED}{{pipeline="{watched_rollout.name}"}} offset 1100ms) == 4')
    return made


def test_the_first_look_begins_the_experiment_and_the_next_ones_go_on_with_it(ab: Ab) -> None:
    first = ab.look()
    assert first.verdict is Verdict.PENDING
    assert 0 < (first.again_after or 0) <= 300
    assert "is undecided after" in first.summary
    assert first.summary.endswith("no answer has been logged since it began; 100 of each version are needed")
    since = ab.record()["since"]
    assert abs(datetime.fromisoformat(since) - datetime.now(UTC)) < timedelta(seconds=30)
    ab.look()
    assert ab.record() == {"strategy": "ab", "run_key": "run-1", "champion": "1", "since": since}


def test_a_better_challenger_wins_and_the_evidence_stays_with_it(ab: Ab) -> None:
    ab.answers(ab.begin(3 * HOUR), 0.5, 0.4)
    outcome = ab.look()
    assert (outcome.verdict, outcome.failure) == (Verdict.PASS, None)
    assert outcome.summary.startswith(
        "version 2 is better than version 1: the gain is above 0 beyond chance; reward 0.4"
    )
    assert "1500 and 1500 entities with a reward" in outcome.summary
    found = outcome.outputs
    assert 0 < found["effect_low"] < found["effect"] < found["effect_high"]
    assert found["challenger"]["n"] == found["champion"]["dealt"] == 1_500
    assert found["effect"] == pytest.approx(found["challenger"]["mean"] - found["champion"]["mean"])
    run_id = ab.registry.get(ab.rollout.name, "2").run_id
    path = found["plot_uri"].split("/artifacts/", 1)[1]
    plot = httpx.get(f"{ab.rollout.trained.url}/get-artifact", params={"run_id": run_id, "path": path})
    assert plot.content.startswith(b"\x89PNG")
    assert ab.record()["outcome"]["verdict"] == "pass"
    ab.answers(datetime.now(UTC) - 2 * HOUR, 0.0, 1.0)
    assert ab.look() == outcome  # it is over, whatever comes now


def test_a_worse_challenger_loses_at_any_time_and_the_rollback_says_why(ab: Ab) -> None:
    ab.answers(ab.begin(timedelta(hours=1, minutes=58)), 0.4, 0.5)
    outcome = ab.look()
    assert outcome.verdict is Verdict.FAIL
    assert "is not better than version 1: the gain is below 0 beyond chance" in (outcome.failure or "")
    context = ab.rollout.context("rollback", "2", "1")
    context.request.inputs["experiment"] = outcome.outputs
    rollback.run(context)
    tags = ab.registry.get(ab.rollout.name, "2").tags
    assert tags[names.TAG_VERDICT_REASON] == outcome.summary
    assert tags[names.TAG_VERDICT] == "rolled_back"


def test_a_challenger_does_not_win_before_the_least_time_has_passed(ab: Ab) -> None:
    ab.answers(ab.begin(timedelta(hours=1, minutes=58)), 0.5, 0.4)
    outcome = ab.look()
    assert outcome.verdict is Verdict.PENDING
    assert "the gain is above 0, and the experiment younger than 2h" in outcome.summary


def test_a_gain_that_is_smaller_than_what_it_must_be_is_undecided(ab: Ab) -> None:
    ab.spec(", min_effect: 0.1")
    ab.answers(ab.begin(3 * HOUR), 0.5, 0.4)
    assert "the gain may be above or below 0.1" in ab.look().summary


@pytest.mark.parametrize(("word", "verdict"), [("abort", Verdict.INCONCLUSIVE), ("continue", Verdict.PASS)])
def test_what_is_undecided_in_the_end_is_decided_as_the_specification_says(ab: Ab, word: str, verdict: Verdict) -> None:
    ab.spec(rest=f", on_inconclusive: {word}")
    ab.answers(ab.begin(12 * HOUR), 0.41, 0.4)
    outcome = ab.look()
    assert outcome.verdict is verdict
    assert "version 2 is undecided after 12h" in outcome.summary
    assert ("and goes on, as on_inconclusive says" in outcome.summary) is (word == "continue")
    assert "plot_uri" in outcome.outputs


def test_without_rewards_it_says_what_to_do(ab: Ab) -> None:
    since = ab.begin(12 * HOUR)
    for number in range(30):
        ab.log.answer(f"e{number}", str(1 + number % 2), since + timedelta(minutes=number))
    ab.log.write()
    outcome = ab.look()
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "no reward has come in time for any of 30 entities: clients send them to /feedback" in outcome.summary


def test_labels_are_a_measure_too(ab: Ab) -> None:
    ab.spec(", measure: label, attribution: 1h")
    ab.answers(ab.begin(3 * HOUR), 0.8, 0.2)
    # All of a version's scores are the same, so the losses differ between the versions alone, and not within them.
    for number in range(200):
        at = datetime.now(UTC) - 2 * HOUR
        for version, score in (("1", 0.3), ("2", 0.7)):
            ab.log.answer(f"more-{version}-{number}", version, at, score=score + number / 1_000)
            ab.log.label(1.0, at, entity=f"more-{version}-{number}")
    ab.log.write()
    outcome = ab.look()
    assert outcome.verdict is Verdict.PASS
    assert "loss 0.0" in outcome.summary
    assert "1700 and 1700 entities with a label" in outcome.summary


def test_entities_that_go_missing_hold_the_verdict_and_are_an_error_in_the_end(ab: Ab) -> None:
    ab.answers(ab.begin(3 * HOUR), 0.5, 0.4, spare=300)
    outcome = ab.look()
    assert outcome.verdict is Verdict.PENDING
    assert "sample ratio mismatch: the challenger answered 1200 entities, and the champion 1500" in outcome.summary
    ab.begin(12 * HOUR)
    outcome = ab.look()
    assert outcome.verdict is Verdict.ERROR
    assert "nothing can be compared" in (outcome.failure or "")
    assert "outcome" not in ab.record()


def test_entities_of_both_versions_hold_the_verdict(ab: Ab) -> None:
    since = ab.begin(3 * HOUR)
    ab.answers(since, 0.5, 0.4)
    for number in range(300):
        ab.log.answer(f"1-{number}", "2", since + timedelta(seconds=3_100))
    ab.log.write()
    assert "were answered by both versions: the assignment is not sticky" in ab.look().summary


def test_a_route_that_a_person_moved_ends_it(ab: Ab) -> None:
    ab.begin(3 * HOUR)
    registry = ab.registry
    registry.write_route(ab.rollout.name, registry.route(ab.rollout.name).moved_to({"1": 1.0}, "ada"))
    outcome = ab.look()
    assert outcome.verdict is Verdict.FAIL
    assert outcome.failure == (
        "the experiment needs the traffic 1: 50%, 2: 50% (ab), but ada made it 1: 100% (sticky, revision 3)"
    )


def test_another_champion_is_an_experiment_of_its_own(ab: Ab) -> None:
    name, registry = ab.rollout.name, ab.registry
    since = ab.begin(3 * HOUR)
    ab.rollout.trained.champion()  # version 3, with all of the traffic
    outcome = ab.look()
    assert (outcome.verdict, outcome.first) == (Verdict.PENDING, "deploy")
    assert outcome.summary == (
        "version 3 is champion now: version 2 is judged against it, and the experiment begins anew"
    )
    registry.tag(name, "2", names.TAG_JUDGED_AGAINST, "3")  # as evaluate does
    assert ab.look() == outcome  # its share is still to be dealt out
    deploy.run(ab.rollout.context("deploy", "2", "1", share=0.5, wait=False))
    assert "no answer has been logged since it began" in ab.look().summary
    assert ab.record()["champion"] == "3"
    assert datetime.fromisoformat(ab.record()["since"]) > since + 2 * HOUR


def test_a_challenger_that_somebody_has_rejected_is_out(ab: Ab) -> None:
    ab.begin(3 * HOUR)
    ab.registry.tag(ab.rollout.name, "2", names.TAG_VERDICT, "rejected")
    outcome = ab.look()
    assert outcome.verdict is Verdict.FAIL
    assert "version 2 is rejected" in (outcome.failure or "")


def test_a_challenger_that_fails_requests_is_out_at_once_whatever_its_rewards(ab: Ab) -> None:
    ab.spec(bake="1m")
    ab.answers(ab.begin(3 * HOUR), 0.9, 0.1)
    replica = ab.watch.replicas[0]
    replica.answer(ab.rollout.name, "2", 60)
    replica.answer(ab.rollout.name, "2", 40, code=500)
    ab.watch.until(f'{names.REQUESTS}{{pipeline="{ab.rollout.name}", code="500"}} == 40')
    outcome = ab.look()
    assert (outcome.verdict, outcome.failure) == (Verdict.FAIL, "version 2 does harm: error rate 40% > 1%")
    assert ab.look() == outcome


@pytest.mark.parametrize(("slow_for", "verdict"), [(4.5, Verdict.FAIL), (0.5, Verdict.PENDING)])
def test_a_limit_counts_when_it_is_broken_twice_in_a_row(ab: Ab, slow_for: float, verdict: Verdict) -> None:
    ab.spec(rest=", abort_on: [{latency_p99: 50ms}]", bake="2s")
    ab.begin(3 * HOUR)
    slow, end = threading.Event(), threading.Event()

    def send() -> None:
        while not end.wait(0.1):
            ab.watch.replicas[0].answer(ab.rollout.name, "1", 20)
            ab.watch.replicas[0].answer(ab.rollout.name, "2", 20, seconds=0.09 if slow.is_set() else 0.005)

    traffic = threading.Thread(target=send)
    traffic.start()
    try:
        time.sleep(4.5 - slow_for)
        slow.set()
        time.sleep(slow_for)
        outcome = ab.look()
    finally:
        end.set()
        traffic.join()
    assert outcome.verdict is verdict
    assert ("does harm: latency p99 99.5 ms > 50 ms" in outcome.summary) is (verdict is Verdict.FAIL)


def test_while_prometheus_is_away_nobody_wins_or_loses(ab: Ab) -> None:
    ab.answers(ab.begin(3 * HOUR), 0.5, 0.4)
    here, room = ab.rollout.room, ab.rollout.room.with_platform(prometheus_url="http://127.0.0.1:9")
    object.__setattr__(ab.rollout, "room", room)
    held = ab.look()
    assert (held.verdict, held.outputs["standing"]) == (Verdict.PENDING, "error")
    assert held.summary.startswith("the experiment with version 2 is held: Prometheus does not answer")
    assert ab.look(**held.state).state == held.state
    ended = ab.look(held_since=held.state["held_since"], lost=6 * 3600)
    assert ended.verdict is Verdict.FAIL
    assert "was without figures for 6h: Prometheus does not answer" in (ended.failure or "")
    object.__setattr__(ab.rollout, "room", here)
    back = ab.look(held_since=held.state["held_since"] - 60)
    assert back.verdict is Verdict.PASS
    assert back.outputs["held_seconds"] > 60


def test_a_prometheus_that_has_lost_its_data_holds_the_verdict_until_it_knows_enough(ab: Ab) -> None:
    ab.spec(bake="30m")
    ab.answers(ab.begin(3 * HOUR), 0.5, 0.4)
    outcome = ab.look()
    assert (outcome.verdict, outcome.outputs["standing"]) == (Verdict.PENDING, "error")
    assert "is held: Prometheus knows nothing of version 2" in outcome.summary
    ab.spec()
    assert ab.look(**outcome.state).verdict is Verdict.PASS


def test_without_a_champion_or_after_the_promotion_there_is_nothing_to_compare(ab: Ab) -> None:
    ab.registry.set_alias(ab.rollout.name, names.ALIAS_CHAMPION, "2")
    outcome = ab.look()
    assert (outcome.verdict, outcome.summary) == (
        Verdict.PASS,
        "no experiment with version 2: it is champion already",
    )


def test_killed_at_any_write_it_ends_the_same(ab: Ab, killed_after: Any) -> None:
    ab.answers(ab.begin(3 * HOUR), 0.5, 0.4)
    for writes in (0, 1):  # before the plot, before the record
        with killed_after(writes):
            ab.look()
        assert "outcome" not in ab.record()
    with killed_after(2, dies=False):
        assert ab.look().verdict is Verdict.PASS


# -- bandit --

BANDIT = "{strategy: bandit, bake: 500ms, experiment: {min_duration: 2h, max_duration: 12h, attribution: 10m"


@pytest.fixture
def bandit(ab: Ab) -> Ab:
    """The same two versions, which a bandit has dealt with for three hours."""
    ab.rollout.deployment(BANDIT + "}}")
    ab.look()
    record = ab.record()
    since = datetime.fromisoformat(record["since"]) - 3 * HOUR
    ab.registry.tag(ab.rollout.name, "2", names.TAG_EXPERIMENT, json.dumps(record | {"since": since.isoformat()}))
    return ab


def rewards(bandit: Ab, ours: tuple[int, int], theirs: tuple[int, int], *, good: float = 1.0) -> None:
    """So many rewards of `good`, of so many, for each version; the others are 0."""
    made = datetime.now(UTC) - 2 * HOUR
    for version, (won, of) in (("2", ours), ("1", theirs)):
        for number in range(of):
            id_ = bandit.log.answer(None, version, made)
            bandit.log.reward(id_, good * (number < won), made, version)
    bandit.log.write()


def test_a_bandit_begins_with_nothing_known_and_learns_at_each_look(bandit: Ab) -> None:
    registry, name = bandit.registry, bandit.rollout.name
    begun = registry.route(name)
    assert (begun.assignment, begun.arms, begun.revision) == ("bandit", {}, 3)
    rewards(bandit, (30, 60), (20, 60))
    outcome = bandit.look()
    assert outcome.verdict is Verdict.PENDING
    assert "60 and 60 rewards; 100 of each version are needed" in outcome.summary
    route = registry.route(name)
    assert (route.weights, route.revision) == ({"1": 0.5, "2": 0.5}, 4)
    assert route.arms["2"] == RateArm(successes=30, failures=30)
    assert outcome.outputs["share"] == outcome.outputs["probability_best"] == pytest.approx(0.967, abs=0.002)
    bandit.look()
    assert registry.route(name).revision == 4  # nothing new was learned


def test_a_bandit_whose_challenger_is_better_ends_and_is_promoted(bandit: Ab) -> None:
    rewards(bandit, (300, 500), (40, 100))
    outcome = bandit.look()
    assert outcome.verdict is Verdict.PASS
    assert "reward 0.6 against 0.4, better with a chance of 100.0%; 500 and 100 rewards" in outcome.summary
    assert outcome.outputs["plot_uri"].endswith("experiment.png")
    promote.run(bandit.rollout.context("promote", "2", "1"))
    route = bandit.registry.route(bandit.rollout.name)
    assert (route.assignment, route.arms, route.weights) == ("sticky", {}, {"2": 1.0})


def test_a_bandit_whose_challenger_is_worse_is_rolled_back(bandit: Ab) -> None:
    rewards(bandit, (30, 100), (300, 500), good=250.0)
    outcome = bandit.look()
    assert outcome.verdict is Verdict.FAIL
    assert "better with a chance of 0.0%" in outcome.summary
    rollback.run(bandit.rollout.context("rollback", "2", "1", reason=outcome.outputs["reason"]))
    route = bandit.registry.route(bandit.rollout.name)
    assert (route.assignment, route.arms, route.weights) == ("sticky", {}, {"1": 1.0})


def test_a_bandit_that_explores_keeps_trying_what_looks_bad(bandit: Ab) -> None:
    bandit.rollout.deployment(BANDIT + ", explore: 10%, min_count: 1000}}")
    rewards(bandit, (10, 200), (150, 200), good=7.5)
    outcome = bandit.look()
    assert outcome.outputs["probability_best"] < 0.001
    assert outcome.outputs["share"] == pytest.approx(0.1)
    arm = bandit.registry.route(bandit.rollout.name).arms["2"]
    assert isinstance(arm, MeanArm)
    assert arm.count == 200
    assert arm.mean == pytest.approx(0.375)


def test_a_bandit_that_nobody_rewards_is_inconclusive_and_says_why(bandit: Ab) -> None:
    bandit.rollout.deployment(BANDIT.replace("12h", "2h") + "}}")
    outcome = bandit.look()
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "no reward has come in time: clients send them to /feedback" in outcome.summary


def test_a_bandit_whose_route_a_person_has_moved_is_over(bandit: Ab) -> None:
    registry, name = bandit.registry, bandit.rollout.name
    registry.move(name, registry.route(name), {"1": 0.5, "2": 0.5}, "ada")
    outcome = bandit.look()
    assert outcome.verdict is Verdict.FAIL
    assert "needs the traffic 1: 50%, 2: 50% (bandit), but ada made it 1: 50%, 2: 50% (sticky" in (
        outcome.failure or ""
    )


def test_a_bandit_that_is_killed_as_it_begins_begins_again(ab: Ab, killed_after: Any) -> None:
    ab.rollout.deployment(BANDIT + "}}")
    for writes in (0, 1):  # before the route, before the record
        with killed_after(writes):
            ab.look()
    assert ab.look().verdict is Verdict.PENDING
    assert (ab.record()["strategy"], ab.registry.route(ab.rollout.name).revision) == ("bandit", 3)
