"""Which champions are new enough to be watched, for the rules: a regression within `deployment.watch` is rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric

from perennial_controller.cases import Event, Facts
from perennial_controller.registry import Registry
from perennial_controller.specs import Specs
from perennial_controller.watching import why_not
from perennial_spec import names

Aliases = tuple[str | None, str | None]
"""The versions that are champion and previous."""


@dataclass(eq=False)  # a registry of Prometheus keeps its collectors in a dict
class Champions:
    """A Prometheus collector over what the registry said last; it stays while the registry is away."""

    specs: Specs
    registry: Registry
    clock: Callable[[], datetime]
    _seen: dict[str, Aliases] = field(default_factory=dict)
    _found: dict[str, Facts] = field(default_factory=dict)

    async def refresh(self) -> None:
        """One question for the aliases of all pipelines; more only on a pipeline whose champion is another than last time.

        Raises:
            RegistryError: it does not answer.
        """
        aliases = await self.registry.aliases()
        for pipeline in self.specs.all():
            of = aliases.get(pipeline.name, {})
            now = (of.get(names.ALIAS_CHAMPION), of.get(names.ALIAS_PREVIOUS))
            facts = self._found.get(pipeline.name, Facts())
            # A promotion tells when it was after it has moved the alias.
            if now != self._seen.get(pipeline.name) or (facts.champion_version and not facts.champion_promoted_at):
                self._found[pipeline.name] = await champion_facts(self.registry, pipeline.name)
                self._seen[pipeline.name] = now

    @property
    def found(self) -> dict[str, Facts]:
        """What the registry said last, by pipeline."""
        return dict(self._found)

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            names.WATCH_UNTIL,
            "Until when a regression of the champion takes the traffic back (deployment.watch); none after that",
            labels=("pipeline", "version"),
        )
        for pipeline in self.specs.all():
            facts, watch = self._found.get(pipeline.name, Facts()), pipeline.spec.deployment.watch
            if why_not(Event("alert", pipeline.name), facts, watch, self.clock()) is None:
                assert facts.champion_version and facts.champion_promoted_at
                until = facts.champion_promoted_at + watch
                family.add_metric((pipeline.name, facts.champion_version), until.timestamp())
        yield family


async def champion_facts(registry: Registry, pipeline: str) -> Facts:
    """What the registry says about a pipeline's champion and the version before it.

    Raises:
        RegistryError: it does not answer.
    """
    champion, previous = await asyncio.gather(
        registry.by_alias(pipeline, names.ALIAS_CHAMPION), registry.by_alias(pipeline, names.ALIAS_PREVIOUS)
    )
    return Facts(
        champion_version=champion.version if champion else None,
        champion_data_version=champion.data_version if champion else None,
        champion_promoted_at=champion.promoted_at if champion else None,
        champion_restored_at=champion.restored_at if champion else None,
        previous_version=previous.version if previous else None,
    )
