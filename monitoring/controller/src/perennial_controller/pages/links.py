"""Where people look further: addresses as a browser reaches them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from perennial_controller.pages.model import Link


@dataclass(frozen=True)
class Links:
    """The addresses of the parts, without a slash at the end; None: there is no link to that part."""

    airflow: str | None
    mlflow: str | None

    def run(self, dag_id: str, run_id: str) -> tuple[Link, ...]:
        return self._of(self.airflow, "run in Airflow", f"/dags/{_safe(dag_id)}/runs/{_safe(run_id)}")

    def version(self, pipeline: str, version: str) -> tuple[Link, ...]:
        return self._of(
            self.mlflow, f"version {version} in MLflow", f"/#/models/{_safe(pipeline)}/versions/{_safe(version)}"
        )

    def pipeline(self, pipeline: str) -> tuple[Link, ...]:
        return (
            *self._of(self.airflow, "Airflow", f"/dags/{_safe(pipeline)}"),
            *self._of(self.mlflow, "MLflow", f"/#/models/{_safe(pipeline)}"),
        )

    @staticmethod
    def _of(base: str | None, text: str, path: str) -> tuple[Link, ...]:
        return (Link(text, base + path),) if base else ()


def figure(url: object) -> tuple[Link, ...]:
    """An alert's own link to its figure in Prometheus. It comes from outside: nothing but http and https is linked to."""
    text = str(url or "")
    try:
        good = urlsplit(text).scheme in {"http", "https"}
    except ValueError:
        good = False
    return (Link("figure in Prometheus", text),) if good else ()


def _safe(text: str) -> str:
    return quote(text, safe="")
