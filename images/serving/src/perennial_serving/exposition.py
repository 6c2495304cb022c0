"""Prometheus' text format, with everything that does not change made once: a scrape only fills in numbers.

A version has some hundred series. Their names and labels are a template that one `%` fills, which takes microseconds; made anew by
prometheus_client they take tens of milliseconds, in which no answer is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from perennial_features.attribution import Attribution
from perennial_features.reference import Counts, Reference
from perennial_serving.counting import ATTRIBUTION_UNITS, BUCKETS, OTHER, Counted
from perennial_spec import names

_BOUNDS = (*(repr(bound) for bound in BUCKETS), "+Inf")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class VersionFacts:
    """What does not change about a version's series."""

    pipeline: str
    version: str
    series: Sequence[Sequence[str]]
    """(feature, bin) of every bin, in the order of the counters."""
    shares: Sequence[float]
    """Share of each in the training data."""
    rows: int
    """Rows of the training data."""
    ranged: Sequence[str] = ()
    """Features whose values may be out of range, in the order of their counters."""
    attribution: Mapping[str, Any] | None = None
    """`Attribution` as JSON, of a model that has one."""

    @classmethod
    def of(cls, pipeline: str, version: str, reference: Reference) -> VersionFacts:
        attribution = None if reference.attribution is None else reference.attribution.model_dump(mode="json")
        shares = reference.shares.tolist()
        return cls(pipeline, version, reference.series, shares, reference.rows, reference.ranged, attribution)


class VersionText:
    """The series of one version, ready to be filled."""

    def __init__(self, facts: VersionFacts) -> None:
        self.pipeline, self.version = facts.pipeline, facts.version
        self._facts = facts
        self._attribution = None if facts.attribution is None else Attribution.model_validate(facts.attribution)
        self._labels = labels({"pipeline": facts.pipeline, "version": facts.version})

    def counted(self, cells: Counts) -> Counted:
        """What `cells` of this version say."""
        return Counted(cells, len(self._facts.series), len(self._facts.ranged))

    def _of(self, name: str, extra: str = "") -> str:
        return f"{name}{{{self._labels}{extra}}} "

    @cached_property
    def _bins(self) -> list[str]:
        return ["," + labels({"feature": feature, "bin": name}) for feature, name in self._facts.series]

    @cached_property
    def _observations(self) -> str:
        return _template(self._of(names.OBSERVATIONS, each) for each in self._bins)

    @cached_property
    def _out_of_range(self) -> str:
        features = ("," + labels({"feature": feature}) for feature in self._facts.ranged)
        return _template(self._of(names.OUT_OF_RANGE, each) for each in features)

    @cached_property
    def _seconds(self) -> str:
        name = names.REQUEST_SECONDS
        buckets = [self._of(f"{name}_bucket", f',le="{bound}"') for bound in _BOUNDS]
        return _template([*buckets, self._of(f"{name}_count")]) + _template([self._of(f"{name}_sum")], "r")

    @cached_property
    def shares(self) -> str:
        """Constant."""
        pairs = zip(self._bins, self._facts.shares, strict=True)
        return "".join(f"{self._of(names.REFERENCE_SHARE, each)}{share!r}\n" for each, share in pairs)

    @cached_property
    def reference_rows(self) -> str:
        """Constant."""
        return f"{self._of(names.REFERENCE_ROWS)}{self._facts.rows}\n"

    @property
    def attributed(self) -> int:
        """Features whose attributions are counted."""
        return len(self._attribution.features) if self._attribution else 0

    @cached_property
    def _attributed(self) -> list[str]:
        return (
            ["," + labels({"feature": feature}) for feature in self._attribution.features] if self._attribution else []
        )

    @cached_property
    def _attributions(self) -> str:
        return _template((self._of(names.ATTRIBUTION_ABS, each) for each in self._attributed), "r")

    @cached_property
    def attribution_shares(self) -> str:
        """Constant."""
        shares = self._attribution.shares if self._attribution else ()
        pairs = zip(self._attributed, shares, strict=True)
        return "".join(f"{self._of(names.ATTRIBUTION_REFERENCE, each)}{share!r}\n" for each, share in pairs)

    @cached_property
    def attribution_reference_rows(self) -> str:
        """Constant."""
        found = self._attribution
        return f"{self._of(names.ATTRIBUTION_REFERENCE_ROWS)}{found.rows}\n" if found else ""

    @cached_property
    def attribution_noise(self) -> str:
        """Constant."""
        found = self._attribution
        return f"{self._of(names.ATTRIBUTION_NOISE)}{found.noise!r}\n" if found else ""

    def attributions(self, counted: Counted) -> str:
        if not self._attribution:
            return ""
        unit = self._attribution.scale / ATTRIBUTION_UNITS
        return self._attributions % tuple(count * unit for count in counted.attributions)

    def explained(self, counted: Counted) -> str:
        return f"{self._of(names.ATTRIBUTION_ROWS)}{counted.explained}\n" if self._attribution else ""

    def unexplained(self, counted: Counted) -> str:
        return f"{self._of(names.ATTRIBUTION_DROPPED)}{counted.unexplained}\n" if self._attribution else ""

    def observations(self, counted: Counted) -> str:
        return self._observations % tuple(counted.bins)

    def out_of_range(self, counted: Counted) -> str:
        return self._out_of_range % tuple(counted.out_of_range)

    def predictions(self, counted: Counted) -> str:
        return f"{self._of(names.PREDICTIONS)}{counted.rows}\n"

    def seconds(self, counted: Counted) -> str:
        buckets = list(accumulate(counted.latency))
        return self._seconds % (*buckets, buckets[-1], counted.seconds)

    def requests(self, counted: Counted) -> str:
        name = f"{names.REQUESTS}{{{self._labels}"
        return "".join(
            f'{name},protocol="{protocol}",code="{"other" if code == OTHER else code}"}} {count}\n'
            for (protocol, code), count in counted.requests.items()
        )


def labels(values: Mapping[str, object]) -> str:
    """As they stand between braces."""
    return ",".join(f'{name}="{str(value).translate(_ESCAPES)}"' for name, value in values.items())


def family(name: str, kind: str, meaning: str, samples: Iterable[str]) -> str:
    """A metric with all its samples, each a line or several. The head stands there also without samples."""
    return f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n{''.join(samples)}"


def samples(name: str, keys: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Iterable[str]:
    """A line for each of `values`, whose keys are the values of the labels named `keys`; in order, whatever the mapping's is."""
    for of, value in sorted(values.items()):
        named = f"{{{labels(dict(zip(keys, of, strict=True)))}}}" if keys else ""
        yield f"{name}{named} {value!r}\n"


def _template(starts: Iterable[str], value: str = "d") -> str:
    return "".join(f"{start.replace('%', '%%')}%{value}\n" for start in starts)
