"""`/metrics`: the counters as Prometheus reads them, made from plain arrays at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from perennial_serving.counting import BUCKETS, OTHER, POLLS, ServerCounters
from perennial_serving.fleet import Fleet
from perennial_serving.model import LoadedModel
from perennial_serving.prediction_log import PredictionLog
from perennial_spec import names

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (*(repr(bound) for bound in BUCKETS), "+Inf")
_VERSION = ("pipeline", "version")
_BIN = ("pipeline", "version", "feature", "bin")


class ServingCollector(Collector):
    """Everything that `perennial_spec.names` promises of the model server."""

    def __init__(self, fleet: Fleet, server: ServerCounters, prediction_log: PredictionLog | None) -> None:
        self._fleet, self._server, self._log = fleet, server, prediction_log

    def collect(self) -> Iterator[Metric]:
        models = [model for served in self._fleet.served.values() for model in served.models.values()]
        yield from _bins(models)
        yield from _versions(models)
        yield self._requests(models)
        yield from self._routes()
        yield from self._logs()
        yield from self._registry()

    def _requests(self, models: list[LoadedModel]) -> Metric:
        found = CounterMetricFamily(
            names.REQUESTS,
            "Requests; one that spans two versions counts for each. No version: refused before one was chosen.",
            labels=("pipeline", "version", "protocol", "code"),
        )
        for model in models:
            for (protocol, code), count in model.counters.counted.requests.items():
                named = "other" if code == OTHER else str(code)
                found.add_metric([model.pipeline, model.version, protocol, named], count)
        for (pipeline, protocol, status), count in self._server.refused.items():
            found.add_metric([pipeline, "", protocol, status], count)
        return found

    def _routes(self) -> Iterator[Metric]:
        weight = GaugeMetricFamily(names.ROUTE_WEIGHT, "Share of the traffic, by the route in force.", labels=_VERSION)
        revision = GaugeMetricFamily(names.ROUTE_REVISION, "Revision of the route in force.", labels=("pipeline",))
        champion = GaugeMetricFamily(
            names.CHAMPION, "1 for the version that the registry calls champion.", labels=_VERSION
        )
        loaded = GaugeMetricFamily(
            names.MODEL_LOADED, "1: can answer; 0: refused, see the server's log.", labels=_VERSION
        )
        for name, served in self._fleet.served.items():
            revision.add_metric([name], served.route.revision)
            for version, share in served.route.weights.items():
                weight.add_metric([name, version], share)
            for version in served.models:
                loaded.add_metric([name, version], 1)
            if served.champion is not None:
                champion.add_metric([name, served.champion], 1)
        for name, version in self._fleet.refused:
            loaded.add_metric([name, version], 0)
        yield from (weight, revision, champion, loaded)

    def _logs(self) -> Iterator[Metric]:
        of = ("pipeline",)
        written = CounterMetricFamily(names.PREDICTION_LOG_WRITTEN, "Prediction rows in the log's table.", labels=of)
        dropped = CounterMetricFamily(
            names.PREDICTION_LOG_DROPPED, "Prediction rows without room in the log.", labels=of
        )
        sampled = CounterMetricFamily(
            names.PREDICTION_LOG_SAMPLED_OUT, "Prediction rows that the spec's share left out of the log.", labels=of
        )
        labels = CounterMetricFamily(names.FEEDBACK, "Labels accepted.", labels=of)
        for name in self._fleet.served:
            if self._log is not None:
                written.add_metric([name], self._log.written.get(name, 0))
                dropped.add_metric([name], self._log.dropped.get(name, 0))
                sampled.add_metric([name], self._log.sampled_out.get(name, 0))
            labels.add_metric([name], self._server.labels.get(name))
        yield from (written, dropped, sampled, labels, self._shadows_dropped(), self._shed(), *self._rewards())

    def _shadows_dropped(self) -> Metric:
        found = CounterMetricFamily(
            names.SHADOW_DROPPED, "Rows that a shadow version did not see: it does not keep up.", labels=_VERSION
        )
        for of, rows in self._server.shadow_dropped.items():
            found.add_metric(of, rows)
        return found

    def _rewards(self) -> Iterator[Metric]:
        count = CounterMetricFamily(
            names.REWARDS, "Rewards accepted, by the version that earned them.", labels=_VERSION
        )
        total = GaugeMetricFamily(
            names.REWARD_SUM, "Sum of the rewards; it falls when they are negative.", labels=_VERSION
        )
        for of, rewards in self._server.rewards.items():
            count.add_metric(of, rewards)
        for of, value in self._server.reward_sums.items():
            total.add_metric(of, value)
        yield from (count, total)

    def _registry(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(names.REGISTRY_UP, "1: the registry answered last time.", self._fleet.registry_up)
        yield GaugeMetricFamily(
            names.REGISTRY_ANSWERED, "When the registry answered last; 0: never.", self._fleet.registry_answered
        )
        polls = CounterMetricFamily(names.REGISTRY_POLLS, "Looks at the registry, by outcome.", labels=("outcome",))
        for outcome in POLLS:
            polls.add_metric([outcome], self._server.polls.get(outcome))
        yield polls

    def _shed(self) -> Metric:
        found = CounterMetricFamily(names.REQUESTS_SHED, "Requests refused over capacity.", labels=("pipeline",))
        for of, count in self._server.shed.items():
            found.add_metric(of, count)
        return found


class Exposition:
    """Renders the metrics of one server."""

    def __init__(self, collector: Collector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The scrape's answer; takes milliseconds, and may run in any thread."""
        return generate_latest(self._registry)


def _bins(models: list[LoadedModel]) -> Iterator[Metric]:
    live = CounterMetricFamily(names.OBSERVATIONS, "Values seen, by the bins of the training data.", labels=_BIN)
    share = GaugeMetricFamily(
        names.REFERENCE_SHARE, "Share of each bin in the training data, half a count added to each.", labels=_BIN
    )
    rows = GaugeMetricFamily(names.REFERENCE_ROWS, "Rows of the training data.", labels=_VERSION)
    for model in models:
        reference = model.reference
        rows.add_metric([model.pipeline, model.version], reference.rows)
        counts, shares = model.counters.bins.tolist(), reference.shares.tolist()
        for (feature, name), count, portion in zip(reference.series, counts, shares, strict=True):
            labels = [model.pipeline, model.version, feature, name]
            live.add_metric(labels, count)
            share.add_metric(labels, portion)
    yield from (live, share, rows)


def _versions(models: list[LoadedModel]) -> Iterator[Metric]:
    rows = CounterMetricFamily(names.PREDICTIONS, "Rows predicted.", labels=_VERSION)
    seconds = HistogramMetricFamily(names.REQUEST_SECONDS, "From the first byte to the answer.", labels=_VERSION)
    for model in models:
        labels = [model.pipeline, model.version]
        counted = model.counters.counted
        rows.add_metric(labels, counted.rows)
        buckets = list(zip(_BOUNDS, accumulate(counted.latency), strict=True))
        seconds.add_metric(labels, buckets, counted.seconds)
    yield from (rows, seconds)
