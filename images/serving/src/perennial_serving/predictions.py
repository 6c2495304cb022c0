"""The endpoints that predict, the general way: every protocol, every form, and every error explained."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from perennial_serving import oip, scoring
from perennial_serving.answers import Answer
from perennial_serving.assignment import OVERRIDE_HEADER, overridden
from perennial_serving.counting import ServerCounters
from perennial_serving.edge import Budget, content_type, error_response, need_json, read_body, refusal
from perennial_serving.engine import Blamed, Engine, describe_failure
from perennial_serving.fleet import Fleet, Served
from perennial_serving.model import ID_HEADER, VERSION_HEADER
from perennial_serving.refusals import status_of
from perennial_serving.rows import Rows
from perennial_serving.settings import Settings
from perennial_spec.errors import PerennialError, RequestError

log = logging.getLogger(__name__)
_LARGE_BODY = 2**18
"""Bytes from which a body is parsed in a thread."""
_MAX_FAILURES = 1000
Respond = Callable[[Answer], tuple[bytes, dict[str, str]]]
Parse = Callable[[bytes, Served], tuple[Rows, Respond]]


@dataclass
class Predictions:
    """Predicts for any protocol."""

    fleet: Fleet
    engine: Engine
    settings: Settings
    counters: ServerCounters
    budget: Budget
    failures: set[str] = field(default_factory=set)
    """Failures of versions that were logged already: one line each, not one per request."""

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/{model}[/versions/{version}]/infer"""
        name = request.path_params["model"]

        def parse(body: bytes, served: Served) -> tuple[Rows, Respond]:
            length = _header_length(request)
            assert served.first is not None
            parsed = oip.parse(body, length, self.settings.max_rows, served.first.schema)
            return parsed.rows, lambda answer: oip.encode(name, parsed, answer)

        return await self._predict(request, "oip", name, request.path_params.get("version"), parse)

    async def invocations(self, request: Request, name: str) -> Response:
        """POST /invocations and /pipelines/{model}/invocations"""

        def parse(body: bytes, served: Served) -> tuple[Rows, Respond]:
            nameless = served.first is not None and served.first.nameless
            return scoring.parse(body, content_type(request), self.settings.max_rows, nameless), scoring.respond

        return await self._predict(request, "mlflow", name, None, parse)

    async def _predict(self, request: Request, protocol: str, name: str, version: str | None, parse: Parse) -> Response:
        start = time.perf_counter()
        pipeline = ""
        try:
            served = self.fleet.need(name)
            pipeline = served.name
            version = version or overridden(request.headers.get(OVERRIDE_HEADER), served)
            body = await read_body(request, self.settings.max_body_bytes, self.budget)
            if len(body) < _LARGE_BODY:
                rows, respond = parse(body, served)
            else:
                rows, respond = await asyncio.to_thread(parse, body, served)
            answered = await self.engine.answer(served, rows, version)
        except Blamed as blamed:
            return self._blame(blamed, protocol, start)
        except PerennialError as error:
            self.counters.refused[pipeline, protocol, status_of(error)] += 1
            return refusal(protocol, error)
        except ClientDisconnect:
            raise
        except Exception:  # our own fault: counted here, answered by `guarded`
            self.counters.refused[pipeline, protocol, 500] += 1
            raise
        content, headers = respond(answered.answer)
        headers = {"content-type": "application/json", **headers}
        headers[VERSION_HEADER] = ",".join(answered.answer.distinct)
        if rows.count == 1:
            headers[ID_HEADER] = answered.answer.ids[0]
        seconds = time.perf_counter() - start
        for model in answered.models:
            model.counters.request(protocol, 200, seconds)
        return Response(content, 200, headers)

    def _blame(self, blamed: Blamed, protocol: str, start: float) -> Response:
        error = blamed.error
        response = (
            refusal(protocol, error)
            if isinstance(error, RequestError)
            else error_response(protocol, 500, self.failure(blamed))
        )
        blamed.model.counters.request(protocol, response.status_code, time.perf_counter() - start)
        response.headers[VERSION_HEADER] = blamed.model.version
        return response

    def failure(self, blamed: Blamed) -> str:
        """What a version failed with, for the client; logged once."""
        what = describe_failure(blamed)
        if what not in self.failures and len(self.failures) < _MAX_FAILURES:
            self.failures.add(what)
            log.error("%s; said once, and counted each time", what)
        return what


def _header_length(request: Request) -> int | None:
    """Bytes of JSON at the head of a body with binary tensors; None for a body of JSON alone."""
    found = oip.header_length(request.headers.get(oip.LENGTH_HEADER))
    if found is None:
        need_json(request)
    return found
