"""What is served at this moment: an immutable picture per pipeline, replaced whole, read by requests without a lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from perennial_serving.assignment import Assigner
from perennial_serving.model import LoadedModel
from perennial_serving.refusals import NotReady, UnknownModel, UnknownVersion
from perennial_spec.route import Route


@dataclass(frozen=True)
class Served:
    """A pipeline's route in force, and the versions that are loaded for it."""

    name: str
    route: Route
    models: Mapping[str, LoadedModel]
    """By version: those of the route, and for a while those that left it."""
    champion: str | None = None

    @cached_property
    def _assigner(self) -> Assigner:
        return Assigner(self.route)

    @cached_property
    def first(self) -> LoadedModel | None:
        """The version that stands for the pipeline: the champion, or else the first of the route."""
        live = self.route.live
        return self.models[self.champion if self.champion in live else live[0]] if live else None

    @cached_property
    def sole(self) -> LoadedModel | None:
        """The version that answers everything, if there is only one."""
        live = self.route.live
        return self.models[live[0]] if len(live) == 1 else None

    @cached_property
    def plain(self) -> bool:
        """Some version takes traffic, and each that does has typed columns for plain rows. If one had not, rows that are drawn by chance
        would be drawn a second time whenever they fall to that one, and it would get less than its share."""
        live = self.route.live
        return bool(live) and all(self.models[version].intake is not None for version in live)

    @property
    def redacts_entity(self) -> bool:
        """Only digests of entities may be stored."""
        return any(model.entity_redacted for model in self.models.values())

    @cached_property
    def shadows(self) -> tuple[LoadedModel, ...]:
        return tuple(self.models[v] for v in self.route.shadow if v in self.models and v not in self.route.live)

    def model(self, version: str) -> LoadedModel:
        """The loaded version.

        Raises:
            UnknownVersion: it is not loaded.
        """
        if version not in self.models:
            raise UnknownVersion(
                f"version {version[:40]!r} of {self.name} is not loaded here",
                expected=f"one of {', '.join(self.models)}" if self.models else "a version of the route",
            )
        return self.models[version]

    def assign(self, keys: Sequence[str | None]) -> list[str] | str:
        """The version of each row, as the route assigns them; see `Assigner.assign`. On the event loop only."""
        return self._assigner.assign(keys)


@dataclass(frozen=True)
class Healthy:
    """What came of the last health query to a version."""

    up: bool
    seconds: float


@dataclass
class Fleet:
    """All pipelines. The follower writes by replacing whole mappings; everyone else reads."""

    served: Mapping[str, Served] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    """Pipelines that have a route, and no version that can take it yet: name to reason."""
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(pipeline, version) that failed to load: reason."""
    health: Mapping[tuple[str, str], Healthy] = field(default_factory=dict)
    """(pipeline, version) in the route, by the last health query; see `health`."""
    registry_up: bool = False
    registry_answered: float = 0.0
    """When it last answered: seconds since 1970; 0: not yet."""
    settled: bool = False
    """The registry, or the disk, has said what is to be served."""
    started: bool = False
    """Once, every pipeline had its versions loaded or refused."""
    draining: bool = False
    replaced: bool = False
    """Another process answers in this one's place: that this one ends is no reason to look elsewhere."""

    @property
    def ready(self) -> bool:
        """Whether load balancers should send requests.

        At first only when every routed pipeline has its versions loaded. A pipeline that comes later, or whose only version is refused,
        does not take the others down with it: only it is not ready (`need`). Not ready again when nothing can answer, and before the end.
        """
        return self.started and (self.replaced or not self.draining) and bool(self.served or not self.waiting)

    def settle(self, waiting: Mapping[str, str]) -> None:
        """Take note of which pipelines cannot answer yet, and why."""
        self.waiting = waiting
        self.settled = self.settled or self.registry_up or bool(self.served)
        refused = {name for name, _ in self.refused}
        self.started = self.started or (self.settled and waiting.keys() <= refused)

    def need(self, name: str) -> Served:
        """The pipeline, able to answer.

        Raises:
            UnknownModel: no such pipeline here.
            NotReady: its versions are loading, or no version takes traffic.
        """
        served = self.served.get(name)
        if served is not None and served.first is not None:
            return served
        if served is None and name not in self.waiting:
            if not self.settled:
                raise NotReady("the server has just started and does not know its pipelines yet", next="try again")
            raise UnknownModel.of(name, self.served)
        reason = "no version takes traffic" if served is not None else self.waiting.get(name, "loading")
        raise NotReady(f"{name} cannot answer yet: {reason}", next="try again, or see: perennial status")

    def only(self) -> str:
        """The name of the one pipeline that is served.

        Raises:
            UnknownModel: there are several, or none; names them.
        """
        if len(self.served) == 1:
            return next(iter(self.served))
        if not self.served:
            raise NotReady("no pipeline is served yet", expected="a pipeline with a route", next="try again")
        choices = ", ".join(f"/pipelines/{name}" for name in sorted(self.served))
        raise Ambiguous("several pipelines are served here", expected=f"a path below one of {choices}")


class Ambiguous(UnknownModel):
    """The request does not say which pipeline."""

    status = 400
