"""`/explain`: how much each feature moved each prediction."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from perennial_features.request import columns_from_rows
from perennial_serving import scoring
from perennial_serving.assignment import OVERRIDE_HEADER, overridden
from perennial_serving.counting import ServerCounters
from perennial_serving.edge import Budget, content_type, json_response, read_body
from perennial_serving.explain import Explainer
from perennial_serving.fleet import Fleet
from perennial_serving.model import VERSION_HEADER, LoadedModel
from perennial_serving.refusals import status_of
from perennial_serving.scorer import read_only
from perennial_serving.settings import Settings
from perennial_spec.errors import PerennialError, RequestError


@dataclass
class Explanations:
    """Explains for any pipeline, by the champion or the version that the header names. No bins are counted, and no predictions logged."""

    fleet: Fleet
    settings: Settings
    counters: ServerCounters
    budget: Budget
    explainer: Explainer

    async def explain(self, request: Request, name: str) -> Response:
        """POST /explain and /pipelines/{model}/explain, in any form of MLflow scoring."""
        start = time.perf_counter()
        pipeline = ""
        try:
            served = self.fleet.need(name)
            pipeline = served.name
            version = overridden(request.headers.get(OVERRIDE_HEADER), served)
            model = served.model(version) if version else served.first
            assert model is not None
            body = await read_body(request, self.settings.max_body_bytes, self.budget)
            rows = scoring.parse(body, content_type(request), self.settings.max_explain_rows)
            answer = await self._answer(model, rows.columns, rows.count)
        except PerennialError as error:
            self.counters.refused[pipeline, "explain", status_of(error)] += 1
            raise
        model.counters.request("explain", 200, time.perf_counter() - start)
        return json_response(answer, 200, {VERSION_HEADER: model.version})

    async def _answer(self, model: LoadedModel, lists: Any, rows: int) -> dict[str, Any]:
        scorer = model.scorer
        if scorer is None:
            raise RequestError(
                f"version {model.version} of {model.pipeline} is a model of another flavour, and cannot be explained here",
                expected="a version that the train step made: trees of XGBoost",
            )
        columns = columns_from_rows(lists, model.schema, rows)
        matrix = scorer.matrix(read_only(columns), rows)
        found = await self.explainer.explain(model.folder, matrix)
        answer = found.to_json(model.pipeline, model.version, model.schema.feature_names)
        return {**answer, "predictions": scorer.predict(matrix)}
