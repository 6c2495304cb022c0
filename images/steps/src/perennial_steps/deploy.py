"""deploy: gives the challenger its share of the traffic, and waits until the model servers have followed.

Order of writes: the alias, then the route, which is one tag. Killed in between, the traffic is as before; run again, it continues.
"""

from __future__ import annotations

import logging

from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.errors import ContractError, PlatformError
from perennial_spec.route import Route
from perennial_spec.units import format_share, parse_duration
from perennial_steps.challenger import Contest, again, contest, flag, no, share_of, weights
from perennial_steps.context import Outcome, StepContext
from perennial_steps.fleet import wait_until_followed
from perennial_steps.prometheus import Prometheus

log = logging.getLogger(__name__)

TIMEOUT = "2m"
"""How long the servers may take to load a version, unless the parameter `timeout` says otherwise."""


def run(context: StepContext) -> Outcome:
    """Deploy the challenger with the parameter `share`, or with `shadow: true` as a shadow; with `wait: false` not waiting for the servers.

    A share of 0 loads and warms it on every server, and moves no traffic.

    Pending when it was judged against another champion than today's: it is evaluated first.

    Raises:
        RegistryError: the registry is away, or somebody else changed the route.
        MonitoringError: the servers have not followed, or Prometheus is away.
        PlatformError: it must wait, and was not told where Prometheus is.
    """
    share = 0.0 if flag(context, "shadow", False) else share_of(context, least=True)
    prometheus = _prometheus(context)
    timeout = _timeout(context)
    with Registry(context.platform.need("mlflow_url")) as registry:
        state = contest(context, registry)
        version, before = state.challenger.version, state.route
        if refusal := state.refusal:
            return no(refusal, version)
        if state.is_outdated:
            return again(state, "evaluate", share or None)
        route = _write(context, registry, state, share)
        if prometheus:
            with prometheus:
                there = wait_until_followed(prometheus, context.pipeline.name, version, route.revision, timeout)
            if there.refused:
                return _undone(context, registry, before, version, there.refused)
    return _outcome(version, route)


def _outcome(version: str, route: Route) -> Outcome:
    taken = route.weights.get(version, 0.0)
    if version in route.shadow:
        said = f"version {version} shadows the traffic, and answers nobody"
    elif taken:
        said = f"version {version} takes {format_share(taken)} of the traffic"
    else:
        said = f"version {version} is loaded, and takes no traffic yet"
    outputs = {"model_version": version, "share": taken, "revision": route.revision}
    return Outcome(f"{said} (revision {route.revision})", outputs, {"share": taken})


def _prometheus(context: StepContext) -> Prometheus | None:
    """The Prometheus to wait with; asked for before anything is written, so that a missing setting changes nothing."""
    if not flag(context, "wait", True):
        return None
    try:
        return Prometheus(context.platform.need("prometheus_url"))
    except PlatformError as error:
        raise PlatformError(
            error.what,
            where="step deploy",
            expected="a Prometheus that scrapes the model servers: it is asked whether they have loaded the version",
            next="set it, or do not wait: --param wait=false",
        ) from None


def _timeout(context: StepContext) -> float:
    given = context.request.params.get("timeout", TIMEOUT)
    try:
        return parse_duration(given).total_seconds()
    except ValueError as error:
        raise ContractError(
            f"timeout is {given!r}", where="StepRequest.params of deploy", expected=str(error).removeprefix("expected ")
        ) from None


def _write(context: StepContext, registry: Registry, state: Contest, share: float) -> Route:
    name = context.pipeline.name
    if not state.is_won and names.ALIAS_CHALLENGER not in state.challenger.aliases:
        registry.set_alias(name, names.ALIAS_CHALLENGER, state.challenger.version)
    if flag(context, "shadow", False) and state.champion is not None and not state.is_won:
        return registry.shadow(name, state.route, state.challenger.version, context.request.run_key)
    return registry.move(name, state.route, weights(state, share), context.request.run_key)


def _undone(context: StepContext, registry: Registry, before: Route, version: str, refused: frozenset[str]) -> Outcome:
    """A version that cannot be loaded must not stay in the route: servers would keep an old one, and a restarted server none."""
    name = context.pipeline.name
    champion = registry.champion(name)
    target = {champion.version: 1.0} if champion else {} if version in before.weights else before.weights
    registry.move(name, registry.route(name), target, context.request.run_key, [version])
    where = ", ".join(sorted(refused))
    return no(f"the model servers refuse version {version} ({where}): see their log; the route is as before", version)
