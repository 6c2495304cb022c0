"""What many write themselves: Starlette on uvicorn with `inplace_predict`. `starlette_app.py PORT MODEL`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from predictors import predictor  # type: ignore[import-not-found]
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def application(model: Path) -> Starlette:
    predict = predictor("inplace", model)

    async def invocations(request: Request) -> JSONResponse:
        value = await request.json()
        return JSONResponse({"predictions": predict(value["dataframe_split"]["data"])})

    return Starlette(routes=[Route("/invocations", invocations, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(application(Path(sys.argv[2])), port=int(sys.argv[1]), access_log=False, log_level="warning")
