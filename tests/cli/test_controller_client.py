"""What `perennial status` learns from the controller, over real HTTP."""

from __future__ import annotations

import pytest
from controller_neighbours import free_port, served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perennial_cli.clients.controller import warnings


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        ("ok\n", 200, []),
        ("ok\nwarning: no alert arrives: look\n", 200, ["no alert arrives: look"]),
        ("ok\nno warning: here\n", 200, []),
        ("warning: it is not ready", 503, []),
    ],
    ids=["well", "warned", "other words", "not ready"],
)
def test_warnings_of_the_controller_are_told(text: str, status: int, told: list[str]) -> None:
    def ready(_: Request) -> PlainTextResponse:
        return PlainTextResponse(text, status)

    with served(Starlette(routes=[Route("/readyz", ready)])) as url:
        assert warnings(url) == told


def test_a_controller_that_does_not_answer_has_no_warnings() -> None:
    assert warnings(f"http://127.0.0.1:{free_port()}") == []
