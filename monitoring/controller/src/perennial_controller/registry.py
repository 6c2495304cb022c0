"""The MLflow registry, over its REST API: importing MLflow would cost this small process more than everything else in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from perennial_spec import names
from perennial_spec.errors import PlatformError, RegistryError
from perennial_spec.route import Route

_PAGE, _MAX_PAGES = "500", 20
"""Models per page, and pages."""


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model."""

    version: str
    data_version: int | None
    """The version of the data that it was trained on; None for a model that did not come from a run of ours."""
    verdict: str | None = None
    """`names.TAG_VERDICT`."""
    promoted_at: datetime | None = None
    restored_at: datetime | None = None
    """When the traffic was last taken back to it."""


@dataclass(frozen=True)
class Served:
    """Which versions of a model have aliases, and which take traffic."""

    aliases: dict[str, str]
    """Version by alias."""
    weights: dict[str, float]
    """Share of the traffic by version; empty before the first deployment, or when the route cannot be read."""
    shadow: tuple[str, ...] = ()


class Registry:
    """What the controller asks the registry."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        if not url.startswith(("http://", "https://")):
            raise PlatformError(
                f"{url.split(':', 1)[0]!r} is not a way to reach the registry from here",
                where="MLFLOW_TRACKING_URI",
                expected="the address of an MLflow server: http:// or https://",
            )
        self._url = url.rstrip("/") + "/api/2.0/mlflow"
        self._http = http

    async def aliases(self) -> dict[str, dict[str, str]]:
        """Version by alias of every registered model, in one question for a page of them.

        Raises:
            RegistryError: no answer, or not one that can be read.
        """
        found: dict[str, dict[str, str]] = {}
        async for answer in self._pages():
            found |= _aliases(answer)
        return found

    async def models(self) -> dict[str, Served]:
        """Aliases and route of every registered model, in one question for a page of them.

        Raises:
            RegistryError: no answer, or not one that can be read.
        """
        found: dict[str, Served] = {}
        async for answer in self._pages():
            aliases = _aliases(answer)
            for model in answer.get("registered_models", ()):
                route = _route(model)
                found[model["name"]] = Served(aliases[model["name"]], dict(route.weights), route.shadow)
        return found

    async def _pages(self) -> AsyncIterator[dict[str, Any]]:
        params = {"max_results": _PAGE}
        for _ in range(_MAX_PAGES):
            answer = self._read(await self._get("/registered-models/search", params))
            yield answer
            if not (token := answer.get("next_page_token")):
                return
            params = {"max_results": _PAGE, "page_token": str(token)}
        raise RegistryError(f"the registry has more than {_MAX_PAGES} pages of {_PAGE} models", where=self._url)

    async def by_alias(self, pipeline: str, alias: str) -> ModelVersion | None:
        """The version that has an alias, or None while none has.

        Raises:
            RegistryError: no answer, or not one that can be read.
        """
        params = {"name": pipeline, "alias": alias}
        response = await self._get("/registered-models/alias", params)
        if response.status_code in (400, 404) and _code(response) in (
            "RESOURCE_DOES_NOT_EXIST",
            "INVALID_PARAMETER_VALUE",
        ):
            return None  # no such model, or no such alias
        return _version(self._read(response).get("model_version"))

    async def of_run(self, pipeline: str, run_key: str) -> ModelVersion | None:
        """The newest version that a run has registered, or None.

        Raises:
            RegistryError: no answer, or not one that can be read.
        """
        query = f"name = '{pipeline}' AND tags.`{names.TAG_RUN_KEY}` = '{run_key}'"
        params = {"filter": query, "max_results": "10", "order_by": "version_number DESC"}
        versions = self._read(await self._get("/model-versions/search", params)).get("model_versions") or []
        return _version(versions[0]) if versions else None

    async def _get(self, path: str, params: dict[str, str]) -> httpx.Response:
        try:
            return await self._http.get(self._url + path, params=params)
        except httpx.HTTPError as error:
            raise RegistryError(f"the registry does not answer ({type(error).__name__})", where=self._url) from error

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            raise RegistryError(f"the registry answered {response.status_code} {_code(response)}", where=self._url)
        answer = _json(response)
        if answer is None:
            raise RegistryError("the registry's answer is not JSON", where=self._url, expected="MLflow's REST API 2.0")
        return answer


def _route(model: dict[str, Any]) -> Route:
    text = next((tag["value"] for tag in model.get("tags", ()) if tag.get("key") == names.TAG_ROUTE), None)
    try:
        return Route.model_validate_json(text) if text else Route()
    except ValueError:  # model servers keep the last route that they could read, and say so
        return Route()


def _aliases(answer: dict[str, Any]) -> dict[str, dict[str, str]]:
    try:
        return {
            model["name"]: {alias["alias"]: str(alias["version"]) for alias in model.get("aliases", ())}
            for model in answer.get("registered_models", ())
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise RegistryError(f"a registered model in the registry's answer cannot be read ({error!r})") from None


def _version(value: Any) -> ModelVersion:
    try:
        tags = {tag["key"]: tag["value"] for tag in value.get("tags", [])}
        data = tags.get(names.TAG_DATA_VERSION)
        return ModelVersion(
            str(value["version"]),
            None if data is None else int(data),
            tags.get(names.TAG_VERDICT),
            _moment(tags.get(names.TAG_PROMOTED_AT)),
            _moment(tags.get(names.TAG_RESTORED_AT)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RegistryError(f"a model version in the registry's answer cannot be read ({error!r})") from None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _json(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _code(response: httpx.Response) -> str:
    return str((_json(response) or {}).get("error_code", ""))
