"""Reading MLflow's registry and artifacts over REST, without MLflow.

One search per poll answers for all pipelines: name, tags (so the route) and aliases (so the champion).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from perennial_serving.registered import model_uri
from perennial_spec import names
from perennial_spec.errors import ModelError, RegistryError
from perennial_spec.route import Route

SAFE_NAME = re.compile(r"[a-z](-?[a-z0-9])*")
"""The spec's pipeline names; also safe as a folder's name."""
SAFE_VERSION = re.compile(r"[0-9]{1,18}")
_MAX_PAGES = 20
_MAX_FILES = 1000
_SCHEME = "mlflow-artifacts:"


@dataclass(frozen=True)
class Listing:
    """What the registry says about one pipeline."""

    name: str
    route: Route | None
    """None: the tag cannot be understood, and `fault` says why."""
    champion: str | None
    fault: str = ""


class Registry:
    """The registry at `url`. Every call is bounded by `timeout` seconds.

    Raises (every method):
        RegistryError: it is away, or answers what is not MLflow's.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._client = httpx.Client(base_url=f"{url.rstrip('/')}/api/2.0/", timeout=timeout, follow_redirects=False)

    def close(self) -> None:
        self._client.close()

    def routed(self) -> list[Listing]:
        """Every registered model that has a route."""
        params = {"filter": f"tags.`{names.TAG_ROUTE}` LIKE '%'", "max_results": "500"}
        found: list[Listing] = []
        for _ in range(_MAX_PAGES):
            page = self._get("mlflow/registered-models/search", params)
            found += [_listing(model) for model in page.get("registered_models", [])]
            if not page.get("next_page_token"):
                break
            params["page_token"] = page["next_page_token"]
        return [listing for listing in found if SAFE_NAME.fullmatch(listing.name)]

    def bundle_uri(self, name: str, version: str) -> str:
        """Where the bundle of a version is; without a bundle, the files of the model that MLflow has logged.

        Raises:
            ModelError: the version does not say.
        """
        found = self._version(name, version)
        uri = _tags(found).get(names.TAG_BUNDLE_URI)
        if uri is None:
            return model_uri(found, self._get)
        if not uri.startswith(f"{_SCHEME}/"):
            raise ModelError(
                f"version {version} of {name} has no bundle that can be fetched",
                expected=f"a version tag {names.TAG_BUNDLE_URI} that starts with {_SCHEME}/",
                next="train it again: the train step sets the tag",
            )
        return uri

    def tags(self, name: str, version: str) -> dict[str, str]:
        """The tags of a version, and those of its registered model that it does not have itself."""
        model = self._get("mlflow/registered-models/get", {"name": name}).get("registered_model", {})
        return {**_tags(model), **_tags(self._version(name, version))}

    def _version(self, name: str, version: str) -> dict[str, Any]:
        answer = self._get("mlflow/model-versions/get", {"name": name, "version": version})
        found: dict[str, Any] = answer.get("model_version", {})
        return found

    def download(self, uri: str, folder: Path, max_bytes: int) -> None:
        """All files below `uri` into `folder`.

        Raises:
            ModelError: there are none, too many, or they are larger than `max_bytes` together.
        """
        root = uri.removeprefix(_SCHEME).lstrip("/") if not uri.startswith(f"{_SCHEME}//") else uri.split("/", 3)[3]
        left, count = max_bytes, 0
        for file in self._files(root):
            count += 1
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= self._download_file(f"{root}/{file}", target, left)
            if left < 0 or count > _MAX_FILES:
                raise ModelError(f"{uri} is too large", expected=f"at most {max_bytes} bytes and {_MAX_FILES} files")
        if not count:
            raise ModelError(f"{uri} is empty", expected="the files of a bundle", next="train the version again")

    def _files(self, root: str, below: str = "") -> Iterator[str]:
        path = f"{root}/{below}" if below else root
        for entry in self._get("mlflow-artifacts/artifacts", {"path": path}).get("files", []):
            name = entry["path"]
            if name in {"", ".", ".."} or PurePosixPath(name).name != name:
                raise ModelError(f"the bundle lists a file named {name[:80]!r}", expected="a plain file name")
            inside = f"{below}/{name}" if below else name
            if entry.get("is_dir"):
                yield from self._files(root, inside)
            else:
                yield inside

    def _download_file(self, path: str, target: Path, max_bytes: int) -> int:
        size = 0
        try:
            with (
                self._client.stream("GET", f"mlflow-artifacts/artifacts/{quote(path)}") as answer,
                target.open("wb") as out,
            ):
                answer.raise_for_status()
                for part in answer.iter_bytes(2**18):
                    size += len(part)
                    if size > max_bytes:
                        break
                    out.write(part)
        except httpx.HTTPError as error:
            raise _away(error, f"file {PurePosixPath(path).name}") from None
        return size

    def _get(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        try:
            answer = self._client.get(path, params=params)
            answer.raise_for_status()
            value = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise _away(error, path) from None
        if not isinstance(value, dict):
            raise RegistryError("the registry does not answer with a JSON object", where=path)
        return value


def _away(error: Exception, where: str) -> RegistryError:
    what = f"HTTP {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__
    return RegistryError(
        f"the registry does not answer as it should ({what})",
        where=where,
        expected="an MLflow tracking server with --serve-artifacts at MLFLOW_TRACKING_URI",
        next="see that the MLflow server runs: perennial status",
    )


def _tags(item: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in item.get("tags", [])}


def _listing(model: dict[str, Any]) -> Listing:
    aliases = {alias["alias"]: str(alias["version"]) for alias in model.get("aliases", [])}
    name, champion = str(model.get("name", "")), aliases.get(names.ALIAS_CHAMPION)
    try:
        route = Route.model_validate_json(_tags(model).get(names.TAG_ROUTE, ""))
    except ValidationError as error:
        return Listing(name, None, champion, f"the route is not understood: {error.errors()[0]['msg']}")
    if wrong := [v for v in (*route.weights, *route.shadow) if not SAFE_VERSION.fullmatch(v)]:
        return Listing(name, None, champion, f"the route names version {wrong[0][:40]!r}, which is not a number")
    return Listing(name, route, champion)
