"""Following the registry: one thread that looks, decides which versions are wanted, and puts a route in force once they answer.

    registry --poll--> wanted --load (two threads)--> loaded --settle--> Fleet.served, and the last good route on disk

A poll that brings nothing new ends there: nothing is settled until a route, a loader or a clock asks for it.

The version that a rollback goes back to is kept loaded without traffic (`standby`).

A route takes effect only when every version that takes traffic in it is loaded; until then, and for as long as one is refused, the
route before stays in force. With the registry away the last route holds, also over a restart. A model whose route tag vanishes is held too:
to stop serving, give it a route without weights.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from perennial_serving.cache import Cache, SavedRoute
from perennial_serving.fleet import Fleet, Served
from perennial_serving.loading import Fetched, load_model
from perennial_serving.model import LoadedModel
from perennial_serving.pace import Pace
from perennial_serving.processes import Processes
from perennial_serving.pyfunc import is_mlflow_model
from perennial_serving.refusals import sentence
from perennial_serving.registered import created, note_tags
from perennial_serving.registry import Listing, Registry
from perennial_serving.settings import Settings
from perennial_serving.standby import Key, Standby
from perennial_spec.errors import PerennialError, RegistryError
from perennial_spec.route import Route

log = logging.getLogger(__name__)
_MAX_RETRY_SECONDS = 60.0
_STOP_SECONDS = 2.0


class Follower:
    """Keeps `fleet` as the registry wants it, in a thread of its own.

    Args:
        counting: gives a loaded version the counters that it is to have; None: it keeps its own.
    """

    def __init__(
        self,
        fleet: Fleet,
        registry: Registry,
        cache: Cache,
        settings: Settings,
        counting: Callable[[LoadedModel], LoadedModel] | None = None,
    ) -> None:
        self._counting = counting
        self._fleet, self._registry, self._cache, self._settings = fleet, registry, cache, settings
        self._pace = Pace(settings)
        self._listed: tuple[Listing, ...] | None = None
        """What the registry said last."""
        self._wanted: dict[str, Listing] = {}
        self._uris: dict[Key, str] = {}
        self._loading: dict[Key, Future[LoadedModel]] = {}
        self._loaded: dict[Key, LoadedModel] = {}
        self._retry: dict[Key, tuple[float, float]] = {}
        """When a version that did not load may be tried again, and how long to wait after that."""
        self._unfetched: set[Key] = set()
        """Those among them that could not be fetched."""
        self._left: dict[Key, float] = {}
        """When a version left the route."""
        self._standby = Standby()
        self._settle_at = -math.inf
        """When there is something to settle, if nothing happens before."""
        self._said: dict[str, str] = {}
        self.processes = Processes()
        """Of the models that are no bundles."""
        self._loaders = ThreadPoolExecutor(2, thread_name_prefix="load")
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """On the event loop."""
        self.processes.bind()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; does not wait long for a call to the registry that is under way."""
        self._stop.set()
        self._wake.set()
        self._registry.cut()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        self._loaders.shutdown(wait=False, cancel_futures=True)
        self._registry.close()

    def _run(self) -> None:
        self._restore()
        look_at = -math.inf
        while not self._stop.is_set():
            try:
                if time.monotonic() >= look_at:
                    look_at = math.inf
                    look_at = self._poll()
                if self._unsettled():
                    self._settle()
            except Exception:  # the thread must outlive whatever the registry or the disk come up with
                log.exception("following the registry failed; the last route holds")
                look_at = min(look_at, time.monotonic() + self._pace.failed())
                self._settle_at = look_at
            self._wake.wait(max(0.0, min(look_at, self._settle_at) - time.monotonic()))
            self._wake.clear()

    def _poll(self) -> float:
        """Look once; when to look again."""
        start = time.monotonic()
        answered = self._look()
        end = time.monotonic()
        return end + (self._pace.answered(end - start) if answered else self._pace.failed())

    def _unsettled(self) -> bool:
        return time.monotonic() >= self._settle_at or any(future.done() for future in self._loading.values())

    def _restore(self) -> None:
        for saved in self._cache.saved():
            if self._serves(saved.pipeline):
                self._wanted[saved.pipeline] = Listing(saved.pipeline, saved.route, saved.champion)
                self._uris.update({(saved.pipeline, version): uri for version, uri in saved.bundles.items()})

    def _serves(self, name: str) -> bool:
        return not self._settings.pipelines or name in self._settings.pipelines

    def _look(self) -> bool:
        """Take note of what the registry says; whether it says anything."""
        try:
            listed = self._registry.routed()
        except RegistryError as error:
            if (self._fleet.registry_up or not self._fleet.settled) and not self._stop.is_set():
                self._say("", f"{sentence(error)}; the last route holds")
            self._fleet.registry_up = False
            return False
        self._fleet.registry_answered = self._registry.answered
        if not self._fleet.registry_up:
            self._back()
        if listed == self._listed:  # at no cost for what is the same object
            return True
        self._listed = listed
        self._settle_at = -math.inf
        for listing in filter(lambda listing: self._serves(listing.name), listed):
            if listing.route is None:
                self._say(listing.name, f"{listing.fault}; the last route holds")
            else:
                self._wanted[listing.name] = listing
        return True

    def _back(self) -> None:
        """The registry answers again, or for the first time: what it could not give may be had now."""
        self._said.pop("", None)
        self._fleet.registry_up = True
        for key in self._unfetched:
            self._retry.pop(key, None)
        self._unfetched.clear()
        self._settle_at = -math.inf

    def _settle(self) -> None:
        self._settle_at = math.inf
        for key in [key for key, future in self._loading.items() if future.done()]:
            self._collect(key, self._loading.pop(key))
        waiting: dict[str, str] = {}
        for name, listing in self._wanted.items():
            if reason := self._settle_one(name, listing):
                waiting[name] = reason
        self._fleet.settle(waiting)

    def _settle_one(self, name: str, listing: Listing) -> str:
        """Load what is missing and put the route in force when it can be. The reason why nothing is in force, if so."""
        assert listing.route is not None
        for version in _versions(listing.route):
            self._load(name, version)
        missing = [version for version in listing.route.live if (name, version) not in self._loaded]
        if not missing:
            self._put_in_force(name, listing, listing.route)
            self._load_standby(name, listing)
            return ""
        reason = self._reason(name, missing[0])
        if name not in self._fleet.served:
            return reason
        if (name, missing[0]) in self._fleet.refused:
            self._say(name, f"route {listing.route.revision} is not put in force: {reason}; the route before holds")
        return ""

    def _load_standby(self, name: str, listing: Listing) -> None:
        """Only when nothing that takes traffic waits to be loaded."""
        kept = self._kept(listing)
        if kept and (name, kept) not in self._standby:
            self._load(name, kept)

    def _kept(self, listing: Listing) -> str | None:
        """The version that is kept on standby, if any."""
        return listing.previous if self._settings.standby else None

    def _reason(self, name: str, version: str) -> str:
        refused = self._fleet.refused.get((name, version))
        return f"version {version} is refused: {refused}" if refused else f"version {version} is loading"

    def _load(self, name: str, version: str) -> None:
        key = (name, version)
        if key in self._loaded or key in self._loading:
            return
        if ready := self._standby.take(key):
            self._loaded[key] = self._counted(ready)
            return
        if time.monotonic() < (retry_at := self._retry.get(key, (0.0, 0.0))[0]):
            self._settle_at = min(self._settle_at, retry_at)
            return
        future = self._loaders.submit(self._fetch_and_load, name, version)
        self._loading[key] = future
        future.add_done_callback(lambda _: self._wake.set())

    def _fetch_and_load(self, name: str, version: str) -> LoadedModel:
        key = (name, version)
        uri = self._uris.get(key) or self._registry.bundle_uri(name, version)
        with self._cache.alone(name, version):
            folder = self._cache.ensure(name, version, uri, self._fetch)
            if is_mlflow_model(folder):
                note_tags(folder, lambda: self._registry.tags(name, version))
            trained = created(folder, lambda: self._registry.created(name, version))
            try:
                model = load_model(Fetched(name, version, uri, folder, trained), self._settings, self.processes)
            except Exception:
                self._cache.forget(folder)
                raise
        self._uris[key] = uri
        return self._counted(model)

    def _counted(self, model: LoadedModel) -> LoadedModel:
        return model if self._counting is None else self._counting(model)

    def _fetch(self, uri: str, folder: Path) -> None:
        self._registry.download(uri, folder, self._settings.max_bundle_bytes, self._settings.load_timeout_seconds)

    def _collect(self, key: Key, future: Future[LoadedModel]) -> None:
        try:
            self._loaded[key] = future.result()
        except Exception as error:
            what = sentence(error) if isinstance(error, PerennialError) else f"{type(error).__name__}: {error}"
            wait = self._retry.get(key, (0.0, self._settings.retry_seconds))[1]
            self._retry[key] = (time.monotonic() + self._pace.spread(wait), min(2 * wait, _MAX_RETRY_SECONDS))
            if isinstance(error, RegistryError):  # says nothing about the version: nobody may take it for a bad one
                self._unfetched.add(key)
                self._say(key[0], f"version {key[1]} cannot be fetched: {what}")
                return
            self._fleet.refused = {**self._fleet.refused, key: what}
            log.warning("version %s of %s is refused, tried again in %.0f s: %s", key[1], key[0], wait, what)
            return
        self._unfetched.discard(key)
        self._retry.pop(key, None)
        self._fleet.refused = {k: why for k, why in self._fleet.refused.items() if k != key}
        log.info("version %s of %s is loaded", key[1], key[0])

    def _put_in_force(self, name: str, listing: Listing, route: Route) -> None:
        gone = self._let_go(name, set(_versions(route)), self._kept(listing))
        models = {version: model for (owner, version), model in self._loaded.items() if owner == name}
        before = self._fleet.served.get(name)
        now = Served(name, route, models, listing.champion)
        same = before is not None and (before.route, before.champion, before.models) == (route, now.champion, models)
        if not same:
            self._fleet.served = {**self._fleet.served, name: now}
        for model in gone:  # which no request can choose any more
            if model.process is not None:
                self.processes.end(model.process)
        if same:
            return
        self._said.pop(name, None)
        if before is None or before.route != route:
            shares = ", ".join(f"{version}: {weight:.0%}" for version, weight in route.weights.items())
            log.info("route %d of %s is in force: %s", route.revision, name, shares or "no version")
        uris = {version: self._uris[name, version] for version in _versions(route) if version in models}
        self._cache.save(SavedRoute(pipeline=name, route=route, champion=listing.champion, bundles=uris))
        self._cache.trim(name, {model.folder for model in models.values()} | self._standby.folders(name))

    def _let_go(self, name: str, wanted: set[str], kept: str | None) -> list[LoadedModel]:
        """Unload versions whose grace is over, and forget refusals that nobody waits for. Those that were unloaded.

        Args:
            kept: goes on standby instead.
        """
        now, unloaded = time.monotonic(), []
        for key in [key for key in self._loaded if key[0] == name]:
            if key[1] in wanted:
                self._left.pop(key, None)
                continue
            until = self._left.setdefault(key, now) + self._settings.grace_seconds
            if now >= until:
                del self._left[key]
                model = self._loaded.pop(key)
                if key[1] == kept:
                    self._standby.keep(model)
                    log.info("version %s of %s is on standby", key[1], name)
                else:
                    unloaded.append(model)
            else:
                self._settle_at = min(self._settle_at, until)
        unloaded += self._standby.let_go(name, but=kept)
        for model in unloaded:
            log.info("version %s of %s is unloaded", model.version, name)
        gone = [key for key in self._fleet.refused if key[0] == name and key[1] not in wanted]
        if gone:
            self._fleet.refused = {key: why for key, why in self._fleet.refused.items() if key not in gone}
        return unloaded

    def _say(self, about: str, what: str) -> None:
        """Log a lasting condition once, not once per poll."""
        if self._said.get(about) != what:
            self._said[about] = what
            log.warning("%s%s", f"{about}: " if about else "", what)


def _versions(route: Route) -> tuple[str, ...]:
    """Those of the route: with traffic, without yet, and shadows."""
    return tuple(dict.fromkeys((*route.weights, *route.shadow)))
