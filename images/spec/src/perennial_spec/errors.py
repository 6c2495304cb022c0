"""Every error that a user of Perennial can cause, as one tree.

    PerennialError
    ├── SpecError            pipeline.yaml is wrong (file, line, nearest valid word)
    ├── PipelineNotFound     no such pipeline
    ├── FeatureError         features.py raises, or returns what it must not
    ├── DataError
    │   ├── SourceError      a source does not answer, or is not what the spec says
    │   └── BatchError       a batch has arrived that must not be used
    ├── RequestError         a prediction request that the model cannot answer (4xx)
    ├── RegistryError        the MLflow registry is away, or lacks what was asked for
    ├── ModelError           a model version that must not serve
    ├── MonitoringError      Prometheus is away, or answers nonsense
    ├── ContractError        a step request or result that does not keep the contract
    └── PlatformError        a part of the platform cannot start or does not answer

Each carries four sentences: what happened, where, what was expected, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that `word` was probably meant to be, or None."""
    matches = get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return matches[0] if matches else None


class PerennialError(Exception):
    """An error for a person to read.

    Args:
        what: what happened, one sentence without a final full stop.
        where: the file and line, column, URL or step that it happened at.
        expected: what would have been right.
        next: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.next = next

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.next:
            lines.append(f"  next: {self.next}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not survive pickling by themselves, and Airflow pickles them.
        return (_rebuild, (type(self), self.what, self.where, self.expected, self.next))


def _rebuild(kind: type[PerennialError], what: str, where: str, expected: str, next: str) -> PerennialError:
    error = kind.__new__(kind)
    PerennialError.__init__(error, what, where=where, expected=expected, next=next)
    return error


class SpecError(PerennialError):
    """`pipeline.yaml` is wrong."""

    exit_code = 2


class PipelineNotFound(PerennialError):
    """No pipeline of that name."""

    exit_code = 2

    @classmethod
    def of(cls, name: str, known: Iterable[str], where: str) -> PipelineNotFound:
        names = sorted(known)
        guess = nearest(name, names)
        return cls(
            f"there is no pipeline named {name!r}",
            where=where,
            expected=f"one of {', '.join(names)}" if names else "a folder with a pipeline.yaml",
            next=f"did you mean {guess!r}?" if guess else f"make it with: perennial new {name}",
        )


class FeatureError(PerennialError):
    """The feature function raises, or returns what it must not."""


class DataError(PerennialError):
    """Data that cannot be used."""


class SourceError(DataError):
    """A source does not answer, or is not what the spec says it is."""


class BatchError(DataError):
    """A batch that must not be used: empty, a column missing, a wrong type, no label."""


class RequestError(PerennialError):
    """A prediction request that the model cannot answer; servers answer it with a 4xx."""


class RegistryError(PerennialError):
    """The model registry is away, or lacks what was asked for."""


class ModelError(PerennialError):
    """A model version that must not serve."""


class MonitoringError(PerennialError):
    """Prometheus is away, or answers what cannot be judged."""


class ContractError(PerennialError):
    """A step request or step result that does not keep the contract."""


class PlatformError(PerennialError):
    """A part of the platform cannot start, or does not answer."""
