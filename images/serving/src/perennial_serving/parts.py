"""A request's rows by the version that answers them, and the versions' answers put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perennial_features.bundle import Scores
from perennial_serving.answers import Answer
from perennial_serving.entities import entity_keys
from perennial_serving.fleet import Served
from perennial_serving.model import LoadedModel
from perennial_serving.rows import Rows
from perennial_serving.scorer import Matrix
from perennial_spec.errors import RequestError


@dataclass(frozen=True)
class Part:
    """The rows of a request that one version answers."""

    model: LoadedModel
    places: Sequence[int] | None
    """Their places in the request; None for all."""
    rows: Rows
    keys: Sequence[str | None]
    """Their entities."""


@dataclass(frozen=True)
class Predicted:
    """What a version made of its rows."""

    scores: Scores
    """float64[rows] or float64[rows, outputs]; object[rows] of text."""
    matrix: Matrix | None
    """What the bins are counted of; None for a model in processes, which has no bins."""


def parts_of(served: Served, rows: Rows, version: str | None) -> list[Part]:
    """The rows by version, as the route assigns them; all to `version` if there is one.

    Raises:
        UnknownVersion: `version` is not loaded.
        RequestError: an entity cannot be a key.
    """
    if version is not None:
        model = served.model(version)
        return [Part(model, None, rows, entity_keys(rows, model.entity))]
    assert served.first is not None
    keys = entity_keys(rows, served.first.entity)
    assigned = served.assign(keys)
    if isinstance(assigned, str) or assigned.count(assigned[0]) == rows.count:
        owner = assigned if isinstance(assigned, str) else assigned[0]
        return [Part(served.models[owner], None, rows, keys)]
    places: dict[str, list[int]] = {}
    for place, owner in enumerate(assigned):
        places.setdefault(owner, []).append(place)
    return [
        Part(served.models[owner], mine, rows.take(mine), [keys[place] for place in mine])
        for owner, mine in places.items()
    ]


def check_form(parts: Sequence[Part], predicted: Sequence[Predicted]) -> None:
    """Whether the versions' answers can be one answer.

    Raises:
        RequestError: they differ in their number of values per row, or some are text and some are numbers.
    """
    forms = {(result.scores.dtype.kind, result.scores.shape[1:]) for result in predicted}
    if len(forms) > 1:
        versions = ", ".join(part.model.version for part in parts)
        raise RequestError(
            f"the rows go to versions {versions}, whose answers have not the same form",
            expected="rows that one version answers",
            next="send one row at a time, or name a version in X-Perennial-Version",
        )


def merged(parts: Sequence[Part], predicted: Sequence[Predicted], ids: Sequence[str]) -> Answer:
    """One answer, in the order of the request."""
    distinct = tuple(part.model.version for part in parts)
    if len(parts) == 1:
        return Answer(_plain(predicted[0].scores), list(distinct) * parts[0].rows.count, ids, distinct)
    first = predicted[0].scores
    scores = np.empty((len(ids), *first.shape[1:]), dtype=first.dtype)
    versions = [""] * len(ids)
    for part, result in zip(parts, predicted, strict=True):
        assert part.places is not None
        scores[part.places] = result.scores
        for place in part.places:
            versions[place] = part.model.version
    return Answer(_plain(scores), versions, ids, distinct)


def _plain(scores: Scores) -> Any:
    """Text as a list: what encodes answers takes arrays of numbers only."""
    return scores.tolist() if scores.dtype.kind == "O" else scores
