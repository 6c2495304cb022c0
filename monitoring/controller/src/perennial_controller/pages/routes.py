"""Requests for pages, and for the same as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from perennial_controller.pages import gather, render
from perennial_spec.errors import PerennialError, PipelineNotFound

if TYPE_CHECKING:
    from perennial_controller.controller import Controller

LIMIT, MOST = 20, 100
SECONDS = 15.0
"""Longest that a page waits for all parts together."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Page = Callable[["Controller", Request], Awaitable[Response]]


def page(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """HTML that may load our style sheet, and nothing else from anywhere."""
    return HTMLResponse(text, status, {**_HEADERS, **(headers or {})})


def problem(error: PerennialError, status: int, headers: dict[str, str] | None = None) -> Response:
    """What is wrong, as a page."""
    return page(render.problem_page(error), status, headers)


async def style(controller: Controller, request: Request) -> Response:
    """The style sheet of all pages."""
    headers = {"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"}
    return Response(render.style(), media_type="text/css", headers=headers)


async def show_overview(controller: Controller, request: Request) -> Response:
    """All pipelines at a glance."""
    async with asyncio.timeout(SECONDS):
        found = await gather.overview(controller, controller.clock())
    return page(render.overview_page(found))


async def show_timeline(controller: Controller, request: Request) -> Response:
    """The story of one pipeline."""
    name, limit, before = _asked(controller, request)
    async with asyncio.timeout(SECONDS):
        story, glances = await asyncio.gather(
            gather.story(controller, name, limit, before, controller.clock()),
            gather.overview(controller, controller.clock()),
        )
    glance = next((each for each in glances.pipelines if each.pipeline == name), None)
    return page(render.timeline_page(story, glance, is_older="before" in request.query_params))


async def list_pipelines(controller: Controller, request: Request) -> Response:
    """All pipelines at a glance, as JSON."""
    async with asyncio.timeout(SECONDS):
        return JSONResponse(asdict(await gather.overview(controller, controller.clock())))


async def tell_timeline(controller: Controller, request: Request) -> Response:
    """The story of one pipeline, as JSON: its newest events; older ones with `before`, which `older` of a page tells."""
    name, limit, before = _asked(controller, request)
    async with asyncio.timeout(SECONDS):
        return JSONResponse(asdict(await gather.story(controller, name, limit, before, controller.clock())))


def _asked(controller: Controller, request: Request) -> tuple[str, int, int]:
    """Pipeline, limit and where the page begins.

    Raises:
        PipelineNotFound: there is none of that name.
        RequestError: a number is none.
    """
    from perennial_controller.requests import number

    name: str = request.path_params["name"]
    if name not in controller.specs.names():
        raise PipelineNotFound.of(name, controller.specs.names(), str(controller.settings.platform.pipelines_dir))
    return name, number(request, "limit", LIMIT, MOST), number(request, "before", 2**63 - 1, 2**63 - 1)
