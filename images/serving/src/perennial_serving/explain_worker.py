"""A process that explains the predictions of bundles; see `explain` for the server's side."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from perennial_features.bundle import MODEL
from perennial_features.code import Array
from perennial_features.engine import contributions, load_booster
from perennial_serving.child_loop import Answer, serve
from perennial_serving.frames import Head
from perennial_spec.errors import RequestError

_KEPT = 4
"""Models that stay loaded, the last asked for."""
_LOG_ODDS = frozenset({"binary:logistic", "binary:logitraw", "reg:logistic"})
_LOG = frozenset({"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"})


class ExplainWorker:
    """Keeps a few boosters."""

    def __init__(self) -> None:
        self._boosters: OrderedDict[str, tuple[Any, str]] = OrderedDict()

    def __call__(self, head: Head, columns: dict[str, Array]) -> Answer:
        booster, space = self._booster(head["folder"])
        found = contributions(booster, columns["matrix"]).astype(np.float64)
        if found.ndim != 2:
            raise RequestError(
                f"the model has {found.shape[1]} values per row, and only models with one can be explained",
                expected="a binary classifier, a regressor or a ranker",
            )
        return {"space": space}, {"base": found[:, -1], "contributions": found[:, :-1]}

    def _booster(self, folder: str) -> tuple[Any, str]:
        known = self._boosters.pop(folder, None)
        if known is None:
            booster = load_booster(str(Path(folder) / MODEL), 1)
            known = booster, space_of(booster)
        self._boosters[folder] = known
        if len(self._boosters) > _KEPT:
            self._boosters.popitem(last=False)
        return known


def space_of(booster: Any) -> str:
    """What the trees of a booster add up to."""
    objective = str(json.loads(booster.save_config())["learner"]["objective"]["name"])
    if objective in _LOG_ODDS:
        return "log-odds"
    if objective in _LOG:
        return "log"
    return "score" if objective.startswith("rank:") else "value"


if __name__ == "__main__":
    serve(ExplainWorker())
