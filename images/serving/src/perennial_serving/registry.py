"""Reading MLflow's registry and artifacts over REST, without MLflow.

One search per poll answers for all pipelines: name, tags (so the route) and aliases (so the champion). MLflow tells no version of an
answer by which one could ask whether it is still the same, so a digest of it is kept: what has not changed is not read again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_not
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import orjson
from pydantic import ValidationError

from perennial_serving.counter_table import Table
from perennial_serving.counting import CHANGED, FAILED, UNCHANGED
from perennial_serving.line import Line, away
from perennial_serving.registered import model_uri
from perennial_spec import names
from perennial_spec.errors import ModelError, RegistryError
from perennial_spec.route import Route

SAFE_NAME = re.compile(r"[a-z](-?[a-z0-9])*")
"""The spec's pipeline names; also safe as a folder's name."""
SAFE_VERSION = re.compile(r"[0-9]{1,18}")
_SEARCH, _MODEL, _VERSION, _ARTIFACTS = (
    "mlflow/registered-models/search",
    "mlflow/registered-models/get",
    "mlflow/model-versions/get",
    "mlflow-artifacts/artifacts",
)
_PAGE, _MAX_PAGES = 500, 20
"""Models per page, and pages."""
_MAX_ANSWER_BYTES = 8 * 2**20
"""16 KiB for each model of a full page; MLflow writes one to three."""
_MAX_FILES = 1000
"""Of a bundle, with its folders."""
_MAX_FAULT = 300
_SCHEME = "mlflow-artifacts:"
Found = TypeVar("Found")


@dataclass(frozen=True)
class Listing:
    """What the registry says about one pipeline."""

    name: str
    route: Route | None
    """None: the tag cannot be understood, and `fault` says why."""
    champion: str | None
    fault: str = ""
    previous: str | None = None
    """The version that a rollback goes back to."""


@dataclass(frozen=True)
class _Page:
    """What one page said last time."""

    digest: bytes
    listings: tuple[Listing, ...]
    following: str
    """Token of the next page; "" at the end."""


class Registry:
    """The registry at `url`.

    Args:
        timeout: seconds for a call, whole.
        pipelines: those that matter. A single one spares the registry the others.
        polls: `routed` counts its outcomes here.

    Raises (every method):
        RegistryError: it is away, or answers what is not MLflow's, or too much, or too slowly.
    """

    def __init__(
        self, url: str, timeout: float, pipelines: Collection[str] = (), polls: Table[int] | None = None
    ) -> None:
        self.answered = 0.0
        """When `routed` had an answer last: seconds since 1970; 0: not yet."""
        self._count: Table[int] | Counter[str] = Counter() if polls is None else polls
        self._url, self._timeout = f"{url.rstrip('/')}/api/2.0/", timeout
        self._tls = httpx.create_ssl_context()
        self._lines: set[Line] = set()
        self._closed = False
        self._polls = Line(self._url, timeout, self._tls)
        self._query = {"filter": _filter(pipelines), "max_results": str(_PAGE)}
        self._pages: list[_Page] = []
        self._routed: tuple[Listing, ...] | None = None

    def cut(self) -> None:
        """End the calls that are under way, and all that would follow; from any thread."""
        self._closed = True
        for line in (self._polls, *self._lines):
            line.cut()

    def close(self) -> None:
        """After the last `routed`."""
        self._polls.close()

    def routed(self) -> tuple[Listing, ...]:
        """Every registered model that has a route; the very same object as last time while it says the same. From one thread."""
        try:
            pages = self._listed()
        except RegistryError:
            self._count[FAILED] += 1
            raise
        self.answered = time.time()
        before, outcome = self._routed, UNCHANGED
        if before is None or len(pages) != len(self._pages) or any(map(is_not, pages, self._pages)):
            found = tuple(listing for page in pages for listing in page.listings)
            if found != before:
                before, outcome = found, CHANGED
        self._pages, self._routed = pages, before
        self._count[outcome] += 1
        assert before is not None
        return before

    def _listed(self) -> list[_Page]:
        pages: list[_Page] = []
        query = self._query
        while len(pages) < _MAX_PAGES:
            body = self._polls.get(_SEARCH, query, _MAX_ANSWER_BYTES, self._timeout)
            pages.append(self._page(len(pages), body))
            if not pages[-1].following:
                return pages
            query = {**self._query, "page_token": pages[-1].following}
        raise away(f"more than {_MAX_PAGES} pages of {_PAGE} models", _SEARCH)

    def _page(self, place: int, body: bytes) -> _Page:
        """The page in `body`: the one before, if it is the same."""
        digest = hashlib.blake2b(body, digest_size=16).digest()
        if place < len(self._pages) and self._pages[place].digest == digest:
            return self._pages[place]
        listings, following = _read(body, _SEARCH, _page_of)
        return _Page(digest, listings, following)

    def bundle_uri(self, name: str, version: str) -> str:
        """Where the bundle of a version is; without a bundle, the files of the model that MLflow has logged.

        Raises:
            ModelError: the version does not say.
        """
        found = self._version(name, version)
        uri = _tags(found).get(names.TAG_BUNDLE_URI)
        if uri is None:
            return model_uri(found, self._answer)
        if not uri.startswith(f"{_SCHEME}/"):
            raise ModelError(
                f"version {version} of {name} has no bundle that can be fetched",
                expected=f"a version tag {names.TAG_BUNDLE_URI} that starts with {_SCHEME}/",
                next="train it again: the train step sets the tag",
            )
        return uri

    def created(self, name: str, version: str) -> float:
        """When a version was registered: seconds since 1970; 0: the registry does not say."""
        return float(self._version(name, version).get("creation_timestamp") or 0) / 1000

    def tags(self, name: str, version: str) -> dict[str, str]:
        """The tags of a version, and those of its registered model that it does not have itself."""
        model = self._answer(_MODEL, {"name": name}).get("registered_model", {})
        return {**_tags(model), **_tags(self._version(name, version))}

    def _version(self, name: str, version: str) -> dict[str, Any]:
        found: dict[str, Any] = self._answer(_VERSION, {"name": name, "version": version}).get("model_version", {})
        return found

    def _answer(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        """One small answer."""
        with self._line() as line:
            return _read(line.get(path, params, _MAX_ANSWER_BYTES, self._timeout), path, dict)

    def download(self, uri: str, folder: Path, max_bytes: int, seconds: float) -> None:
        """All files below `uri` into `folder`.

        Args:
            max_bytes, seconds: for all of them together.

        Raises:
            ModelError: there are none, too many, or they are larger.
        """
        root = uri.removeprefix(_SCHEME).lstrip("/") if not uri.startswith(f"{_SCHEME}//") else uri.split("/", 3)[3]
        left, end, files = max_bytes, time.monotonic() + seconds, 0
        with self._line() as line:
            for file in self._files(line, root):
                files += 1
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                path = f"{_ARTIFACTS}/{quote(f'{root}/{file}')}"
                with target.open("wb") as out:
                    for piece in line.pieces(path, {}, 2**62, max(end - time.monotonic(), 0.001)):
                        left -= len(piece)
                        if left < 0:
                            raise _too_large(uri, max_bytes)
                        out.write(piece)
        if not files:
            raise ModelError(f"{uri} is empty", expected="the files of a bundle", next="train the version again")

    def _files(self, line: Line, root: str) -> Iterator[str]:
        """Paths below `root` of all files in it and in its folders."""
        folders, seen = [""], 0
        while folders:
            below = folders.pop()
            path = f"{root}/{below}" if below else root
            body = line.get(_ARTIFACTS, {"path": path}, _MAX_ANSWER_BYTES, self._timeout)
            for name, is_folder in _read(body, _ARTIFACTS, _entries):
                seen += 1
                if seen > _MAX_FILES:
                    raise ModelError(f"{root} holds too much", expected=f"at most {_MAX_FILES} files and folders")
                if name in {"", ".", ".."} or PurePosixPath(name).name != name:
                    raise ModelError(f"the bundle lists a file named {name[:80]!r}", expected="a plain file name")
                inside = f"{below}/{name}" if below else name
                if is_folder:
                    folders.append(inside)
                else:
                    yield inside

    @contextmanager
    def _line(self) -> Iterator[Line]:
        """A connection for a few calls in this thread."""
        line = Line(self._url, self._timeout, self._tls)
        self._lines.add(line)
        try:
            if self._closed:
                line.cut()
            yield line
        finally:
            self._lines.discard(line)
            line.close()


def _filter(pipelines: Collection[str]) -> str:
    routed = f"tags.`{names.TAG_ROUTE}` LIKE '%'"
    if len(pipelines) == 1 and SAFE_NAME.fullmatch(name := next(iter(pipelines))):
        return f"name = '{name}' and {routed}"
    return routed


def _too_large(uri: str, max_bytes: int) -> ModelError:
    return ModelError(f"{uri} is too large", expected=f"at most {max_bytes} bytes")


def _read(body: bytes, where: str, reader: Callable[[dict[str, Any]], Found]) -> Found:
    """What `reader` finds in a JSON object.

    Raises:
        RegistryError: it is none, or not of the shape that `reader` expects.
    """
    try:
        return reader(orjson.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise away("no JSON of MLflow's", where) from None


def _page_of(value: dict[str, Any]) -> tuple[tuple[Listing, ...], str]:
    listings = (_listing(model) for model in value.get("registered_models", ()))
    safe = tuple(listing for listing in listings if SAFE_NAME.fullmatch(listing.name))
    return safe, str(value.get("next_page_token") or "")


def _entries(value: dict[str, Any]) -> list[tuple[str, bool]]:
    """Names in a folder of artifacts, and whether each is a folder."""
    return [(str(entry["path"]), bool(entry.get("is_dir"))) for entry in value.get("files", ())]


def _tags(item: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in item.get("tags", [])}


def _listing(model: dict[str, Any]) -> Listing:
    aliases = {alias["alias"]: str(alias["version"]) for alias in model.get("aliases", [])}
    name, champion = str(model.get("name", "")), aliases.get(names.ALIAS_CHAMPION)
    try:
        route = Route.model_validate_json(_tags(model).get(names.TAG_ROUTE, ""))
    except ValidationError as error:
        return Listing(name, None, champion, f"the route is not understood: {error.errors()[0]['msg'][:_MAX_FAULT]}")
    if wrong := [v for v in (*route.weights, *route.shadow) if not SAFE_VERSION.fullmatch(v)]:
        return Listing(name, None, champion, f"the route names version {wrong[0][:40]!r}, which is not a number")
    previous = aliases.get(names.ALIAS_PREVIOUS, "")
    return Listing(name, route, champion, previous=previous if SAFE_VERSION.fullmatch(previous) else None)
