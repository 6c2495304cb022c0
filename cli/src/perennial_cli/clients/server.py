"""The model server, asked as its clients ask it."""

from __future__ import annotations

from typing import Any

from perennial_cli.clients.http import TIMEOUT_SECONDS, ask, said
from perennial_spec.errors import PlatformError
from perennial_spec.platform import Platform


class ModelServer:
    def __init__(self, platform: Platform) -> None:
        import httpx

        self._client = httpx.Client(base_url=platform.need("server_url"), timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self._client.close()

    def is_ready(self, pipeline: str) -> bool:
        path = f"/v2/models/{pipeline}/ready"
        return ask(self._client, "GET", path, part="server", expected={503}).status_code == 200  # 503: it loads

    def versions_that_answer(self, pipeline: str, rows: list[dict[str, Any]]) -> list[str]:
        """The distinct versions that answered `rows`, asked in one request."""
        path = f"/pipelines/{pipeline}/invocations"
        response = ask(self._client, "POST", path, part="server", json={"dataframe_records": rows})
        if response.status_code != 200:
            raise PlatformError(f"the model server answered {said(response)}", where=path)
        return [v.strip() for v in response.headers["X-Perennial-Version"].split(",")]
