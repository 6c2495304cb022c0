"""The rollout of a challenger, as tasks: one function for each `deployment.strategy`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import BaseOperator, TaskGroup, TriggerRule, chain

from perennial_operators.tasks import step
from perennial_spec.deployment import Strategy
from perennial_spec.load import Pipeline


def rollout_group(pipeline: Pipeline) -> TaskGroup:
    """The challenger takes one share of the traffic after the other, each judged, then all of it; or everything goes back.

    `rollback` runs when any of it failed after the first deployment began, and the run then still fails: `promoted` is never reached.
    What comes after the group must come after `promoted`, because `rollback` is skipped when all went well.
    """
    with TaskGroup("rollout", prefix_group_id=False, tooltip="Move the traffic, step by step") as group:
        tasks = list(_STRATEGIES[pipeline.spec.deployment.strategy](pipeline))
        chain(*tasks)
        # Empty tasks cost no process: the scheduler decides them by itself. `begun`: the first deployment ran, whatever came of it;
        # when an earlier step of the run failed it is skipped, and with it the rollback.
        begun = EmptyOperator(task_id="begun", trigger_rule=TriggerRule.ONE_DONE)
        stopped = EmptyOperator(task_id="stopped", trigger_rule=TriggerRule.ONE_FAILED)
        rollback = step(pipeline, "rollback")
        promoted = EmptyOperator(task_id="promoted")
        _ = tasks[0] >> begun
        _ = tasks >> stopped
        _ = [begun, stopped] >> rollback
        _ = tasks[-1] >> promoted
    return group


def _replace(pipeline: Pipeline) -> Iterator[BaseOperator]:
    """All at once."""
    yield step(pipeline, "promote")


def _canary(pipeline: Pipeline) -> Iterator[BaseOperator]:
    """Step by step, each but the last judged."""
    for share in pipeline.spec.deployment.steps[:-1]:
        suffix = f"{share * 100:g}".replace(".", "_")
        yield step(pipeline, "deploy", task_id=f"deploy_{suffix}", params={"share": share})
        yield step(pipeline, "analyse", task_id=f"analyse_{suffix}", params={"share": share})
    yield step(pipeline, "promote")


def _blue_green(pipeline: Pipeline) -> Iterator[BaseOperator]:
    """Loaded everywhere first, then all at once, judged while the champion stays loaded, and goes back without a cold start."""
    yield step(pipeline, "deploy", task_id="deploy_0", params={"share": 0})
    yield step(pipeline, "deploy", task_id="deploy_100", params={"share": 1})
    yield step(pipeline, "analyse", task_id="analyse_100", params={"share": 1})
    yield step(pipeline, "promote")


def _shadow(pipeline: Pipeline) -> Iterator[BaseOperator]:
    """Beside the champion, to nobody, until what both say to the same rows is compared."""
    yield step(pipeline, "deploy", task_id="deploy_shadow", params={"shadow": True})
    yield step(pipeline, "compare", params={"shadow": True})
    yield step(pipeline, "promote")


def _experiment(pipeline: Pipeline) -> Iterator[BaseOperator]:
    """Side by side, until what came of the answers says which version is better; a bandit's shares move by themselves."""
    share = {"share": pipeline.spec.deployment.experiment.share}
    yield step(pipeline, "deploy", params=share)
    yield step(pipeline, "experiment", params=share)
    yield step(pipeline, "promote")


_STRATEGIES: dict[Strategy, Callable[[Pipeline], Iterator[BaseOperator]]] = {
    "replace": _replace,
    "canary": _canary,
    "blue_green": _blue_green,
    "shadow": _shadow,
    "ab": _experiment,
    "bandit": _experiment,
}
"""What each strategy does, as tasks in a row; any that fails takes everything back."""
