"""`/metrics`: the counters as Prometheus reads them, made from plain arrays at the moment of the scrape.

Counters are of all processes that answer on the port, whichever of them is asked. What says how things stand (the route in force, what is
loaded) is of the one that is asked: the others are a moment before or after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from perennial_serving import usage
from perennial_serving.counting import POLLS, REQUESTS, ROWS, Counted, ServerCounters, VersionCounters
from perennial_serving.exposition import VersionFacts, VersionText, family, samples
from perennial_serving.fleet import Fleet
from perennial_spec import names

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PIPELINE = ("pipeline",)
_VERSION = ("pipeline", "version")
Values = Mapping[tuple[str, ...], float]


class Tally(Protocol):
    """Where counters are read."""

    def versions(self) -> list[tuple[VersionText, Counted]]:
        """Every version that counts."""

    def tables(self) -> Mapping[str, Values]:
        """The tables of `ServerCounters`, by their names."""

    def processes(self) -> str:
        """What the processes take of the machine."""

    def workers(self) -> int:
        """Processes that answer."""


class OwnTally:
    """The counters of this process, which is the only one.

    Args:
        fleet: whose versions are exported.
        counters: what is counted beside.
    """

    def __init__(self, fleet: Fleet, counters: ServerCounters) -> None:
        self._fleet, self._counters = fleet, counters
        self._texts: WeakKeyDictionary[VersionCounters, VersionText] = WeakKeyDictionary()

    def versions(self) -> list[tuple[VersionText, Counted]]:
        found = []
        for served in self._fleet.served.values():
            for model in served.models.values():
                text = self._texts.get(model.counters)
                if text is None:
                    facts = VersionFacts.of(model.pipeline, model.version, model.reference)
                    text = self._texts[model.counters] = VersionText(facts)
                found.append((text, model.counters.counted))
        return found

    def tables(self) -> Mapping[str, Values]:
        return self._counters.read()

    def processes(self) -> str:
        return usage.text(os.getpid())

    def workers(self) -> int:
        return 1


@dataclass(frozen=True)
class Limits:
    """What one process takes at a time."""

    requests: int
    rows: int


class Exposition:
    """Renders everything that `perennial_spec.names` promises of the model server."""

    def __init__(self, fleet: Fleet, tally: Tally, logs: bool, limits: Limits) -> None:
        self._fleet, self._tally, self._logs, self._limits = fleet, tally, logs, limits

    def text(self) -> bytes:
        """The scrape's answer; may run in any thread."""
        versions, tables = self._tally.versions(), self._tally.tables()
        parts = [
            *_bins(versions),
            *_attributions(versions),
            *_versions(versions, tables["refused"]),
            *self._routes(),
            *self._health(),
            *self._rows(tables),
            *self._server(tables["shed"], tables["polls"]),
            *self._saturation(tables["in_flight"]),
        ]
        return "".join(parts).encode()

    def _routes(self) -> Iterator[str]:
        served = self._fleet.served
        weights: Values = {
            (name, of): share for name, each in served.items() for of, share in each.route.weights.items()
        }
        revisions: Values = {(name,): each.route.revision for name, each in served.items()}
        champions: Values = {(name, each.champion): 1 for name, each in served.items() if each.champion is not None}
        loaded: dict[tuple[str, ...], float] = dict.fromkeys(self._fleet.refused, 0)
        loaded |= {(name, version): 1 for name, each in served.items() for version in each.models}
        yield _gauge(names.ROUTE_WEIGHT, "Share of the traffic, by the route in force.", _VERSION, weights)
        yield _gauge(names.ROUTE_REVISION, "Revision of the route in force.", _PIPELINE, revisions)
        yield _gauge(names.CHAMPION, "1 for the version that the registry calls champion.", _VERSION, champions)
        yield _gauge(names.MODEL_LOADED, "1: can answer; 0: refused, see the server's log.", _VERSION, loaded)

    def _health(self) -> Iterator[str]:
        """How old versions are, and whether they answer as they did."""
        served, health = self._fleet.served, self._fleet.health
        trained: Values = {
            (name, version): model.trained
            for name, each in served.items()
            for version, model in each.models.items()
            if model.trained
        }
        up: Values = {key: int(found.up) for key, found in health.items()}
        seconds: Values = {key: found.seconds for key, found in health.items()}
        yield _gauge(names.MODEL_TRAINED, "When the version was registered, since 1970.", _VERSION, trained)
        yield _gauge(
            names.HEALTH_QUERY_UP,
            "1: the version answers rows of its training as it did then; 0: it does not, see the log.",
            _VERSION,
            up,
        )
        yield _gauge(names.HEALTH_QUERY_SECONDS, "How long the last health query took.", _VERSION, seconds)

    def _rows(self, tables: Mapping[str, Values]) -> Iterator[str]:
        """What became of rows beside their answers."""
        if self._logs:
            yield self._by_pipeline(
                names.PREDICTION_LOG_WRITTEN, tables["log_written"], "Prediction rows in the log's table."
            )
            yield self._by_pipeline(
                names.PREDICTION_LOG_DROPPED, tables["log_dropped"], "Prediction rows without room in the log."
            )
            yield self._by_pipeline(
                names.PREDICTION_LOG_SAMPLED_OUT,
                tables["log_sampled_out"],
                "Prediction rows that the spec's share left out of the log.",
            )
        yield self._by_pipeline(names.FEEDBACK, tables["labels"], "Labels accepted.")
        yield _counter(
            names.SHADOW_DROPPED,
            "Rows that a shadow version did not see: it does not keep up.",
            _VERSION,
            tables["shadow_dropped"],
        )
        yield _counter(
            names.REWARDS,
            "Rewards accepted, by the version that earned them.",
            _VERSION,
            tables["rewards"],
        )
        yield _gauge(
            names.REWARD_SUM,
            "Sum of the rewards; it falls when they are negative.",
            _VERSION,
            tables["reward_sums"],
        )

    def _server(self, shed: Values, polls: Values) -> Iterator[str]:
        fleet = self._fleet
        yield _counter(names.REQUESTS_SHED, "Requests refused over capacity.", _PIPELINE, shed)
        yield _gauge(names.REGISTRY_UP, "1: the registry answered last time.", (), {(): int(fleet.registry_up)})
        answered: Values = {(): fleet.registry_answered}
        yield _gauge(names.REGISTRY_ANSWERED, "When the registry answered last; 0: never.", (), answered)
        looks = {(outcome,): 0 for outcome in POLLS} | dict(polls)
        yield _counter(names.REGISTRY_POLLS, "Looks at the registry, by outcome.", ("outcome",), looks)
        yield _gauge(names.WORKERS, "Processes that answer on this port.", (), {(): self._tally.workers()})
        yield self._tally.processes()

    def _saturation(self, in_flight: Values) -> Iterator[str]:
        """What is in progress beside what may be; both over all workers."""
        workers = self._tally.workers()
        requests, rows = (in_flight.get((what,), 0) for what in (REQUESTS, ROWS))
        most: Values = {(): self._limits.requests * workers}
        yield _gauge(names.IN_FLIGHT, "Connections that are open: each has one request at a time.", (), {(): requests})
        yield _gauge(names.REQUESTS_LIMIT, "Connections beyond these are refused with 503.", (), most)
        yield _gauge(names.ROWS_IN_FLIGHT, "Rows of large requests that are being predicted.", (), {(): rows})
        yield _gauge(names.ROWS_LIMIT, "Rows beyond these are refused with 503.", (), {(): self._limits.rows * workers})

    def _by_pipeline(self, name: str, values: Values, meaning: str) -> str:
        """A counter that begins at 0 for every pipeline that is served."""
        begin = {(served,): 0 for served in self._fleet.served}
        return _counter(name, meaning, _PIPELINE, begin | dict(values))


def _bins(versions: list[tuple[VersionText, Counted]]) -> Iterator[str]:
    yield family(
        names.OBSERVATIONS,
        "counter",
        "Values seen, by the bins of the training data.",
        [text.observations(counted) for text, counted in versions],
    )
    yield family(
        names.OUT_OF_RANGE,
        "counter",
        "Values of numeric features below the least or above the greatest of the training data.",
        [text.out_of_range(counted) for text, counted in versions],
    )
    yield family(
        names.REFERENCE_SHARE,
        "gauge",
        "Share of each bin in the training data, half a count added to each.",
        [text.shares for text, _ in versions],
    )
    yield family(
        names.REFERENCE_ROWS, "gauge", "Rows of the training data.", [text.reference_rows for text, _ in versions]
    )


def _attributions(versions: list[tuple[VersionText, Counted]]) -> Iterator[str]:
    """Of models that TreeSHAP explains; of the others there is no series."""
    yield family(
        names.ATTRIBUTION_ABS,
        "counter",
        "Sum of |contribution| over the rows explained, in the unit of the margin.",
        [text.attributions(counted) for text, counted in versions],
    )
    yield family(
        names.ATTRIBUTION_ROWS,
        "counter",
        "Rows of a random sample that were explained.",
        [text.explained(counted) for text, counted in versions],
    )
    yield family(
        names.ATTRIBUTION_DROPPED,
        "counter",
        "Rows of the sample that could not be explained.",
        [text.unexplained(counted) for text, counted in versions],
    )
    yield family(
        names.ATTRIBUTION_REFERENCE,
        "gauge",
        "Each feature's part of the sum of |contribution| on rows that the model was not fitted to.",
        [text.attribution_shares for text, _ in versions],
    )
    yield family(
        names.ATTRIBUTION_REFERENCE_ROWS,
        "gauge",
        "Rows that this was measured on.",
        [text.attribution_reference_rows for text, _ in versions],
    )
    yield family(
        names.ATTRIBUTION_NOISE,
        "gauge",
        "Shift between n and m rows of one kind, divided by sqrt(1/n + 1/m), that chance seldom exceeds.",
        [text.attribution_noise for text, _ in versions],
    )


def _versions(versions: list[tuple[VersionText, Counted]], refused: Values) -> Iterator[str]:
    yield family(names.PREDICTIONS, "counter", "Rows predicted.", [t.predictions(c) for t, c in versions])
    yield family(
        names.REQUEST_SECONDS,
        "histogram",
        "From the first byte to the answer.",
        [t.seconds(c) for t, c in versions],
    )
    labels = ("pipeline", "version", "protocol", "code")
    unchosen = {(of[0], "", *of[1:]): count for of, count in refused.items()}
    yield family(
        names.REQUESTS,
        "counter",
        "Requests; one that spans two versions counts for each. No version: refused before one was chosen.",
        [*(t.requests(c) for t, c in versions), *samples(names.REQUESTS, labels, unchosen)],
    )


def _counter(name: str, meaning: str, labels: tuple[str, ...], values: Values) -> str:
    return family(name, "counter", meaning, samples(name, labels, values))


def _gauge(name: str, meaning: str, labels: tuple[str, ...], values: Values) -> str:
    return family(name, "gauge", meaning, samples(name, labels, values))
