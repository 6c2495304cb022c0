"""MLflow's REST API over httpx: timeouts, bounded retries, and errors that say what to do.

Why not `MlflowClient`: importing it takes 2.0 to 2.5 s of CPU (mlflow-skinny 3.17; it loads FastAPI and pandas), httpx takes 0.2 s.
The short steps of a rollout are processes of their own and would spend nearly all their time on that import.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from perennial_spec.errors import RegistryError

if TYPE_CHECKING:
    import httpx

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
_AGAIN = frozenset({429, 500, 502, 503, 504})
"""500 too: MLflow answers it when its database is locked or restarts."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server that is slow, away or overloaded."""

    connect: float = 5.0
    """Seconds for one connection."""
    read: float = 30.0
    """Seconds without a byte of the answer."""
    attempts: int = 5
    """Tries of one call, the first one included."""
    pause: float = 0.2
    """Seconds before the second try; doubles with each, and is spread by chance so that callers do not return in step."""

    def pauses(self) -> Iterator[float]:
        """Seconds to sleep before each further try."""
        for attempt in range(self.attempts - 1):
            yield self.pause * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 (not a secret)


class ApiError(Exception):
    """MLflow understood the call and refused it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class MlflowRest:
    """Calls of one MLflow server. Every call may be repeated: the registry built on it makes each of them safe to repeat.

    Raises:
        RegistryError: `tracking_uri` is not an http(s) URL.
    """

    def __init__(self, tracking_uri: str, patience: Patience | None = None) -> None:
        if not tracking_uri.startswith(("http://", "https://")):
            raise RegistryError(
                "the tracking URI is not the address of a server",
                where="MLFLOW_TRACKING_URI",
                expected="http://... or https://...: model servers and steps share one registry over the network",
                next="start the platform with: perennial up",
            )
        self._base = tracking_uri.rstrip("/")
        self.url = re.sub(r"//[^/@]*@", "//", self._base)
        """The address as it is shown: without user and password."""
        self._patience = patience or Patience()
        self._client: httpx.Client | None = None

    def get(self, call: str, **params: Any) -> dict[str, Any]:
        """`GET /api/2.0/mlflow/<call>`.

        Raises:
            ApiError: MLflow refused.
            RegistryError: MLflow is away.
        """
        return self._json("GET", f"{API}/{call}", params=params)

    def post(self, call: str, **body: Any) -> dict[str, Any]:
        """`POST /api/2.0/mlflow/<call>`; errors as `get`."""
        return self._json("POST", f"{API}/{call}", json=body)

    def delete(self, call: str, **body: Any) -> dict[str, Any]:
        """`DELETE /api/2.0/mlflow/<call>`; errors as `get`."""
        return self._json("DELETE", f"{API}/{call}", json=body)

    def list_artifacts(self, path: str) -> list[dict[str, Any]]:
        """`[{path, is_dir, file_size}, ...]` of a folder of the artifact store; `path` of each is relative to the folder."""
        files: list[dict[str, Any]] = self._json("GET", ARTIFACTS, params={"path": path}).get("files", [])
        return files

    def read_artifact(self, path: str) -> Iterator[bytes]:
        """The bytes of one artifact, in pieces. Not retried here: the caller begins the file anew."""
        import httpx

        url = f"{ARTIFACTS}/{quote(path)}"
        try:
            with self._connection().stream("GET", url) as answer:
                if not answer.is_success:
                    answer.read()
                    raise refused(answer)
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            raise self._away(error) from error

    def pauses(self) -> Iterator[float]:
        """Seconds to sleep before each further try of something that this class does not retry itself."""
        return self._patience.pauses()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connection(self) -> httpx.Client:
        import httpx

        if self._client is None:
            timeout = httpx.Timeout(self._patience.read, connect=self._patience.connect)
            headers, auth = credentials(os.environ)
            self._client = httpx.Client(base_url=self._base, timeout=timeout, headers=headers, auth=auth)
        return self._client

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self._send(method, path, **arguments)
        if not answer.is_success:
            raise refused(answer)
        try:
            value = answer.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise RegistryError(
                f"{method} {path} was not answered by MLflow: {answer.text[:80]!r}",
                where=self.url,
                expected="JSON of MLflow's REST API",
                next="point MLFLOW_TRACKING_URI at an MLflow server",
            )
        return value

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        import httpx

        pauses = self._patience.pauses()
        while True:
            try:
                answer = self._connection().request(method, path, **arguments)
            except httpx.TransportError as error:
                pause = next(pauses, None)
                if pause is None:
                    raise self._away(error) from error
            else:
                pause = next(pauses, None) if answer.status_code in _AGAIN else None
                if pause is None:
                    return answer
            time.sleep(pause)

    def _away(self, error: Exception) -> RegistryError:
        return RegistryError(
            f"the model registry does not answer: {error or type(error).__name__}",
            where=self.url,
            expected=f"an MLflow server (tried {self._patience.attempts} times)",
            next="see whether it runs with: perennial status; then run the step again, it continues where it stopped",
        )


def credentials(environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, str] | None]:
    """Headers and basic authentication from MLflow's own variables, which are never logged."""
    if token := environment.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}, None
    user, password = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    return {}, (user, password) if user and password else None


def refused(answer: httpx.Response) -> ApiError:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    message = str(body.get("message") or answer.text)[:500]
    return ApiError(answer.status_code, str(body.get("error_code", f"HTTP {answer.status_code}")), message)
