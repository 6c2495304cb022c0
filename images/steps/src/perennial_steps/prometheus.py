"""Instant queries of Prometheus: typed samples, or an error that says what to do."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from perennial_spec.errors import MonitoringError

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 15.0
ATTEMPTS = 5
"""Tries of one query, over about 6 s: a Prometheus that restarts is not a reason to give up a rollout."""
_AGAIN = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Sample:
    """One series of an instant vector."""

    labels: Mapping[str, str]
    """Without the name of the metric."""
    value: float
    """May be NaN or infinite, as in Prometheus."""


class Prometheus:
    """One Prometheus server.

    Args:
        url: PERENNIAL_PROMETHEUS_URL.
        attempts: tries of each query.

    Raises:
        MonitoringError: from every method, when the server is away or its answer is not a success.
    """

    def __init__(self, url: str, attempts: int = ATTEMPTS) -> None:
        if not url.startswith(("http://", "https://")):
            raise MonitoringError(
                "this is not the address of a Prometheus server",
                where="PERENNIAL_PROMETHEUS_URL",
                expected="http://... or https://...",
            )
        self._base = url.rstrip("/")
        self.url = re.sub(r"//[^/@]*@", "//", self._base)
        """The address as it is shown: without user and password."""
        self._attempts = attempts
        self._client: httpx.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """The instant vector of `expression`; empty when nothing matches.

        Args:
            expression: PromQL of an instant vector or a scalar.
            at: Unix time in seconds; the server's now by default.
        """
        answer = self._ask({"query": expression, **({"time": f"{at:.3f}"} if at is not None else {})})
        try:
            return list(_samples(answer["data"]["resultType"], answer["data"]["result"]))
        except (KeyError, TypeError, ValueError, IndexError):
            raise MonitoringError(
                f"Prometheus answered {str(answer)[:120]!r}",
                where=f"{self.url}: {expression}",
                expected="an instant vector or a scalar",
            ) from None

    def value(self, expression: str, at: float | None = None) -> float | None:
        """The one value of `expression`, or None when nothing matches; NaN counts as nothing.

        Raises:
            MonitoringError: more than one series matches.
        """
        found = self.query(expression, at)
        if len(found) > 1:
            raise MonitoringError(
                f"{len(found)} series match where one was expected", where=f"{self.url}: {expression}"
            )
        return found[0].value if found and found[0].value == found[0].value else None

    def now(self) -> float:
        """Unix time by the server's own clock, in seconds: windows must not depend on the clock of this machine."""
        value = self.value("time()")
        if value is None:
            raise MonitoringError("Prometheus does not know the time", where=f"{self.url}: time()")
        return value

    def _ask(self, params: Mapping[str, str]) -> dict[str, Any]:
        import httpx

        if self._client is None:
            self._client = httpx.Client(base_url=self._base, timeout=TIMEOUT_SECONDS)
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(0.4 * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311 (not a secret)
            try:
                # POST: a query may be longer than a URL may be.
                answer = self._client.post("/api/v1/query", data=params)
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
                continue
            if answer.status_code not in _AGAIN:
                return self._success(answer, params["query"])
            why = f"HTTP {answer.status_code}"
        raise MonitoringError(
            f"Prometheus does not answer: {why}",
            where=self.url,
            expected=f"an answer to an instant query (tried {self._attempts} times)",
            next="see whether it runs with: perennial status; nothing is promoted while it cannot be asked",
        )

    def _success(self, answer: httpx.Response, expression: str) -> dict[str, Any]:
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or body.get("status") != "success":
            said = body.get("error", body) if isinstance(body, dict) else answer.text[:120]
            raise MonitoringError(
                f"Prometheus refused the query: {said}",
                where=f"{self.url} (HTTP {answer.status_code}): {expression}",
                expected='"status": "success"',
                next="see that PERENNIAL_PROMETHEUS_URL is the address of a Prometheus server",
            )
        return body


def _samples(kind: str, result: Any) -> Iterator[Sample]:
    if kind == "scalar":
        yield Sample({}, float(result[1]))
        return
    if kind != "vector":
        raise ValueError(kind)
    for series in result:
        labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
        yield Sample(labels, float(series["value"][1]))


def quoted(text: str) -> str:
    """`text` as a PromQL string, for label matchers."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
