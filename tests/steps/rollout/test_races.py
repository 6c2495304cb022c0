"""Two runs that promote at the same moment, against a real MLflow: at every point at which one may overtake the other."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from perennial_registry.mlflow_rest import MlflowRest
from perennial_spec.errors import RegistryError
from perennial_spec.step import Verdict
from perennial_steps import promote
from perennial_steps.context import Outcome

CALLS = 22
"""More than one promotion makes; a promotion that is over gives way."""


class Turns:
    """Which of the threads may make the next call to the registry: `(who, how many)` in order, a thread that has ended left out."""

    def __init__(self, order: list[tuple[str, int]]) -> None:
        self._calls = itertools.chain.from_iterable(itertools.repeat(who, count) for who, count in order)
        self._change, self._ended, self._busy = threading.Condition(), set[str](), False
        self._next = next(self._calls, None)

    @contextmanager
    def call(self) -> Iterator[None]:
        me = threading.current_thread().name
        with self._change:
            assert self._change.wait_for(lambda: not self._busy and self._next in {me, None}, timeout=60)
            self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    def end(self) -> None:
        with self._change:
            self._ended.add(threading.current_thread().name)
        if self._next in self._ended:
            self._pass_on()

    def _pass_on(self) -> None:
        with self._change:
            self._busy = False
            self._next = next((who for who in self._calls if who not in self._ended), None)
            self._change.notify_all()


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What each of the functions came to, when their calls to the registry are made in this order."""

    def run(order: list[tuple[str, int]], **runners: Callable[[], Outcome]) -> dict[str, Any]:
        turns, send, found = Turns(order), MlflowRest._send, dict[str, Any]()

        def in_turn(self: MlflowRest, method: str, path: str, **arguments: Any) -> httpx.Response:
            with turns.call():
                return send(self, method, path, **arguments)

        def runner(name: str) -> None:
            try:
                found[name] = runners[name]().verdict
            except RegistryError as error:
                found[name] = error
            finally:
                turns.end()

        with monkeypatch.context() as patch:
            patch.setattr(MlflowRest, "_send", in_turn)
            threads = [threading.Thread(target=runner, args=(name,), name=name) for name in runners]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=120)
        return found

    return run


def promotion(rollout: Any, version: str) -> Callable[[], Outcome]:
    context = rollout.context("promote", version, "1")
    mine = replace(context, request=context.request.model_copy(update={"run_key": f"run-{version}"}))
    return lambda: promote.run(mine)


def contested(rollout: Any) -> None:
    """Champion 1, and two versions that were judged against it."""
    rollout.trained.champion()
    rollout.trained.version()
    rollout.trained.version()


def check(rollout: Any, found: dict[str, Any]) -> None:
    """Never two winners; the winner is champion and has the traffic; then the loser is judged again, or whoever tries again wins."""
    winners = [name for name, came in found.items() if came is Verdict.PASS]
    assert len(winners) <= 1, found
    for name in found.keys() - set(winners):
        assert found[name] is Verdict.PENDING or isinstance(found[name], RegistryError), found
    if not winners:
        again = {name: _once_more(rollout, name) for name in sorted(found)}
        winners = [name for name, came in again.items() if came is Verdict.PASS]
        assert len(winners) == 1, (found, again)
    (version,) = winners
    state = rollout.state()
    assert state["aliases"]["champion"] == version, (found, state)
    assert state["weights"] == {version: 1.0}, (found, state)
    (loser,) = found.keys() - set(winners)
    assert _once_more(rollout, loser) is Verdict.PENDING


def _once_more(rollout: Any, version: str) -> Any:
    try:
        return promotion(rollout, version)().verdict
    except RegistryError as error:
        return error


@pytest.mark.parametrize("calls", range(18))
def test_of_two_promotions_one_wins_wherever_the_other_comes_between(rollout, race, calls: int) -> None:
    contested(rollout)
    order = [("2", calls), ("3", CALLS), ("2", CALLS)]
    check(rollout, race(order, **{name: promotion(rollout, name) for name in ("2", "3")}))


# Around the writes of both, where without the second looks of `perennial_registry.promotion` two of them would win.
@pytest.mark.parametrize(("first", "second"), itertools.product(range(4, 10), range(2, 14)))
def test_of_two_promotions_one_wins_whichever_overtakes_the_other_twice(rollout, race, first: int, second: int) -> None:
    contested(rollout)
    order = [("2", first), ("3", second), ("2", CALLS), ("3", CALLS)]
    check(rollout, race(order, **{name: promotion(rollout, name) for name in ("2", "3")}))
