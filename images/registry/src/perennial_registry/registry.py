"""The model registry: versions, aliases, tags, the route and the bundles, as Perennial uses MLflow's.

The registered model has the pipeline's name. Each method is one REST call or a few, has a timeout, and may be repeated after a kill
without a further effect. See `perennial_spec.names` for tags and aliases.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from perennial_registry.bundle_download import download_folder
from perennial_registry.mlflow_rest import ALREADY_EXISTS, NOT_FOUND, ApiError, MlflowRest, Patience
from perennial_spec import names
from perennial_spec.errors import RegistryError
from perennial_spec.route import Route, split

log = logging.getLogger(__name__)

_PAGE = 1000


@dataclass(frozen=True)
class ModelVersion:
    """One version of a pipeline's registered model."""

    name: str
    version: str
    run_id: str
    source: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None

    @property
    def number(self) -> int:
        """The version as a number: versions are ordered by it."""
        return int(self.version)


def with_alias(versions: Iterable[ModelVersion], alias: str) -> ModelVersion | None:
    """The one of these versions that has `alias`, or None."""
    return next((version for version in versions if alias in version.aliases), None)


class Registry:
    """The registry of one MLflow server.

    Args:
        tracking_uri: http(s) address of the MLflow server (MLFLOW_TRACKING_URI).
        patience: timeouts and retries of each call.

    All methods raise `RegistryError` when the server is away or refuses.
    """

    def __init__(self, tracking_uri: str, patience: Patience | None = None) -> None:
        self.rest = MlflowRest(tracking_uri, patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self.rest.close()

    # -- versions --

    def get(self, name: str, version: str) -> ModelVersion:
        """One version.

        Raises:
            RegistryError: there is none of that number.
        """
        found = self._find("model-versions/get", name=name, version=version)
        if found is None:
            raise RegistryError(
                f"there is no version {version} of model {name!r}",
                where=self.rest.url,
                next=f"see which there are: {self.rest.url}/#/models/{name}",
            )
        return _version(found["model_version"])

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, the oldest first; none when the model was never registered."""
        aliases = self._aliases(name)
        found = [_version(raw, aliases) for raw in self._search(f"name = '{_plain(name)}'")]
        return sorted(found, key=lambda version: version.number)

    def find_by_run_key(self, name: str, run_key: str) -> ModelVersion | None:
        """The version that the run of that key registered, or None."""
        return min(self._of_run_key(name, run_key), key=lambda version: version.number, default=None)

    def register(
        self, name: str, *, run_id: str, source: str, run_key: str, tags: Mapping[str, str] | None = None
    ) -> ModelVersion:
        """The version of `run_key`: made now, or the one that an earlier call made.

        Tags are written in the same transaction as the version, so that it is never seen half made. Two callers that race
        both get the version with the lower number; the other is deleted again.
        """
        if found := self.find_by_run_key(name, run_key):
            return found
        self._ensure_model(name)
        wanted = {**(tags or {}), names.TAG_RUN_KEY: run_key}
        with self._refusals(f"register a version of {name!r}"):
            made = self.rest.post(
                "model-versions/create",
                name=name,
                source=source,
                run_id=run_id,
                tags=[{"key": key, "value": value} for key, value in wanted.items()],
            )
        number = str(made["model_version"]["version"])
        winner, *losers = sorted(self._of_run_key(name, run_key), key=lambda version: version.number)
        if number in {loser.version for loser in losers}:
            self._delete_version(name, number)
        return winner

    # -- aliases and tags --

    def champion(self, name: str) -> ModelVersion | None:
        """The version that serves, or None before the first."""
        return self.by_alias(name, names.ALIAS_CHAMPION)

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that has `alias`, or None."""
        version = self._aliases(name).get(alias)
        return self.get(name, version) if version else None

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Give `alias` to a version; it is taken from whichever had it, in one write."""
        with self._refusals(f"set alias {alias!r} of {name!r} to version {version}"):
            self.rest.post("registered-models/alias", name=name, alias=alias, version=version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Take `alias` away; nothing happens when no version has it."""
        with self._refusals(f"delete alias {alias!r} of {name!r}", ignore=NOT_FOUND):
            self.rest.delete("registered-models/alias", name=name, alias=alias)

    def tag(self, name: str, version: str, key: str, value: str) -> None:
        """Write one tag of a version."""
        with self._refusals(f"tag version {version} of {name!r} with {key}"):
            self.rest.post("model-versions/set-tag", name=name, version=version, key=key, value=value)

    def untag(self, name: str, version: str, key: str) -> None:
        """Take one tag of a version away; nothing happens when it has none of that key."""
        with self._refusals(f"take {key} off version {version} of {name!r}", ignore=NOT_FOUND):
            self.rest.delete("model-versions/delete-tag", name=name, version=version, key=key)

    # -- route --

    def route(self, name: str) -> Route:
        """Which version takes which share of the traffic; empty before the first deployment.

        Raises:
            RegistryError: the tag does not hold a route. Nothing is guessed: a wrong guess would move traffic.
        """
        text = self._model_tags(name).get(names.TAG_ROUTE)
        if text is None:
            return Route()
        try:
            return Route.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise RegistryError(
                f"the route of {name!r} cannot be read: {first['msg']}",
                where=f"{self.rest.url}: tag {names.TAG_ROUTE} of registered model {name}",
                expected='JSON such as {"revision": 3, "weights": {"7": 1.0}, "shadow": [], "changed_by": "..."}',
                next="correct the tag in MLflow; model servers keep the last route they could read",
            ) from None

    def write_route(self, name: str, route: Route) -> Route:
        """Replace the route by its next revision, in one write of one tag.

        MLflow has no compare-and-set. Runs of a pipeline are one at a time, so a changed revision means a person or a second platform:
        it is looked for before and after the write, and reported instead of overwritten.

        Raises:
            RegistryError: somebody else changed the route in the meantime.
        """
        current = self.route(name)
        if current.revision != route.revision - 1:
            raise self._changed(name, current, route)
        with self._refusals(f"write the route of {name!r}"):
            self.rest.post("registered-models/set-tag", name=name, key=names.TAG_ROUTE, value=route.model_dump_json())
        written = self.route(name)
        if written != route:
            raise self._changed(name, written, route)
        return written

    def move(
        self, name: str, current: Route, weights: Mapping[str, float], by: str, leaving: Collection[str] = ()
    ) -> Route:
        """Give each version its weight. The route in force then: `current` where it says so already, and nothing is written.

        Args:
            name: the pipeline.
            current: its route, as it was read a moment ago.
            weights: by version; their sum is 1, or there are none.
            by: the run key, or the person.
            leaving: versions that are to be no shadows, either.

        Raises:
            RegistryError: somebody else changed the route in the meantime.
        """
        route = current.moved_to(weights, by, leaving=leaving)
        if route is current:
            log.info("the route is already %s (revision %d)", split(route), route.revision)
            return route
        log.info("route %s -> %s (revision %d)", split(current), split(route), route.revision)
        return self.write_route(name, route)

    def shadow(self, name: str, current: Route, version: str, by: str) -> Route:
        """Let a version see the traffic, and answer nobody; the route in force then, as `move`.

        Raises:
            RegistryError: somebody else changed the route in the meantime.
        """
        route = current.shadowed_by(version, by)
        if route is current:
            return route
        log.info("version %s shadows %s (revision %d)", version, split(route), route.revision)
        return self.write_route(name, route)

    # -- bundle --

    def download_bundle(self, name: str, version: str, folder: Path) -> Path:
        """The version's bundle as a local folder, `<folder>/<name>/<version>`; one that is there already is used as it is.

        Raises:
            RegistryError: the version has no bundle, or the artifact store lacks it.
        """
        target = folder / name / version
        if target.is_dir():
            return target
        uri = self.get(name, version).tags.get(names.TAG_BUNDLE_URI)
        if not uri:
            raise RegistryError(
                f"version {version} of {name!r} has no bundle",
                where=f"{self.rest.url}: tag {names.TAG_BUNDLE_URI}",
                expected="mlflow-artifacts:/...",
                next="train it again: it was registered by something else than Perennial, or its tag was removed",
            )
        download_folder(self.rest, uri, target)
        return target

    # -- inside --

    @contextmanager
    def _refusals(self, doing: str, ignore: str = "") -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            if error.code != ignore:
                raise RegistryError(
                    f"MLflow refused to {doing}: {error.message}",
                    where=f"{self.rest.url} ({error.code})",
                    next="when it names a host or permission, see --allowed-hosts and MLFLOW_TRACKING_TOKEN",
                ) from error

    def _find(self, call: str, **params: Any) -> dict[str, Any] | None:
        found: list[dict[str, Any]] = []
        with self._refusals(f"answer {call}", ignore=NOT_FOUND):
            found.append(self.rest.get(call, **params))
        return found[0] if found else None

    def _search(self, query: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page: dict[str, Any] = {}
            with self._refusals("search model versions"):
                page = self.rest.get(
                    "model-versions/search",
                    filter=query,
                    max_results=_PAGE,
                    **({"page_token": token} if token else {}),
                )
            yield from page.get("model_versions", [])
            token = page.get("next_page_token", "")
            if not token:
                return

    def _of_run_key(self, name: str, run_key: str) -> list[ModelVersion]:
        query = f"name = '{_plain(name)}' and tags.`{names.TAG_RUN_KEY}` = '{_plain(run_key)}'"
        return [_version(raw) for raw in self._search(query)]

    def _model(self, name: str) -> dict[str, Any]:
        found = self._find("registered-models/get", name=name) or {}
        model: dict[str, Any] = found.get("registered_model", {})
        return model

    def _aliases(self, name: str) -> dict[str, str]:
        return {alias["alias"]: str(alias["version"]) for alias in self._model(name).get("aliases", [])}

    def _model_tags(self, name: str) -> dict[str, str]:
        return _tags(self._model(name))

    def _ensure_model(self, name: str) -> None:
        with self._refusals(f"create the registered model {name!r}", ignore=ALREADY_EXISTS):
            self.rest.post("registered-models/create", name=name)

    def _delete_version(self, name: str, version: str) -> None:
        with self._refusals(f"delete version {version} of {name!r}", ignore=NOT_FOUND):
            self.rest.delete("model-versions/delete", name=name, version=version)

    def _changed(self, name: str, current: Route, wanted: Route) -> RegistryError:
        return RegistryError(
            f"the route of {name!r} was changed by {current.changed_by or 'somebody else'}",
            where=self.rest.url,
            expected=f"revision {wanted.revision - 1} before this change, found revision {current.revision}",
            next="look at the route, then run the step again: it starts from what is there",
        )


def _version(raw: dict[str, Any], aliases: Mapping[str, str] | None = None) -> ModelVersion:
    version = str(raw["version"])
    # A search returns no aliases: they come from the registered model then.
    own = [alias for alias, of in aliases.items() if of == version] if aliases is not None else raw.get("aliases", [])
    made = raw.get("creation_timestamp")  # milliseconds
    return ModelVersion(
        raw["name"],
        version,
        raw.get("run_id", ""),
        raw.get("source", ""),
        tuple(sorted(own)),
        _tags(raw),
        datetime.fromtimestamp(int(made) / 1000, UTC) if made else None,
    )


def _tags(raw: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in raw.get("tags", [])}


def _plain(text: str) -> str:
    """`text`, which is safe between quotes in a filter: MLflow's filters have no escape."""
    if "'" in text or "\\" in text:
        raise RegistryError(f"{text!r} has a quote or a backslash", expected="a name or run key without either")
    return text
