"""What the server keeps on disk so that it can start without the registry: bundles, and the last good route of each pipeline.

    <root>/bundles/<pipeline>/<version>-<digest of the URI>/...
    <root>/routes/<pipeline>.json
    <root>/locks/<pipeline>@<version>

A bundle's folder appears by one rename, so a folder that exists is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from perennial_spec.base import Model
from perennial_spec.route import Route

log = logging.getLogger(__name__)


class SavedRoute(Model):
    """A route that was in force, with what it takes to load its versions again."""

    pipeline: str
    route: Route
    champion: str | None = None
    bundles: dict[str, str] = Field(default_factory=dict)
    """Version to bundle URI."""


class Cache:
    """The folder `root`, with at most `keep` bundles per pipeline beside those in use."""

    def __init__(self, root: Path, keep: int) -> None:
        self._bundles = root / "bundles"
        self._routes = root / "routes"
        self._keep = keep
        self._locks = root / "locks"
        for folder in (self._bundles, self._routes, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    def bundle(self, pipeline: str, version: str, uri: str) -> Path:
        """Where the bundle is, or would be."""
        digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
        return self._bundles / pipeline / f"{version}-{digest}"

    @contextmanager
    def alone(self, pipeline: str, version: str) -> Iterator[None]:
        """What is done to a version in here is done by one process of those that share the folder; the others wait, and find it done."""
        with self._locks.joinpath(f"{pipeline}@{version}").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def ensure(self, pipeline: str, version: str, uri: str, fetch: Callable[[str, Path], None]) -> Path:
        """The bundle's folder, fetched by `fetch(uri, folder)` unless it is there already."""
        final = self.bundle(pipeline, version, uri)
        if final.is_dir():
            final.touch()
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self._bundles) as temporary:
            folder = Path(temporary) / "bundle"
            folder.mkdir()
            fetch(uri, folder)
            folder.rename(final)
        return final

    def forget(self, folder: Path) -> None:
        """Remove a bundle that did not load: what is on disk may be damaged, and the next try fetches it anew."""
        shutil.rmtree(folder, ignore_errors=True)

    def trim(self, pipeline: str, in_use: Collection[Path]) -> None:
        """Remove the bundles that were not used for longest."""
        folder = self._bundles / pipeline
        if not folder.is_dir():
            return
        idle = sorted((p for p in folder.iterdir() if p not in in_use), key=lambda p: p.stat().st_mtime)
        for old in idle[: max(0, len(idle) - self._keep)]:
            shutil.rmtree(old, ignore_errors=True)

    def save(self, saved: SavedRoute) -> None:
        """Replace the pipeline's last good route."""
        target = self._routes / f"{saved.pipeline}.json"
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(saved.model_dump_json(indent=1))
        temporary.replace(target)

    def saved(self) -> list[SavedRoute]:
        """The last good route of every pipeline; one that cannot be read is left out."""
        found = []
        for file in sorted(self._routes.glob("*.json")):
            try:
                found.append(SavedRoute.model_validate_json(file.read_text()))
            except (ValidationError, UnicodeDecodeError):
                log.warning("saved route %s cannot be read and is ignored", file.name)
        return found
