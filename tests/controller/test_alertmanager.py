"""A pair of real Alertmanagers, as people run them, against a controller of its own process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

ALERTMANAGER = shutil.which("prometheus-alertmanager") or "alertmanager"
CONFIG = """\
route: {{receiver: controller, group_by: [pipeline], group_wait: 0s, group_interval: 1s, repeat_interval: 1s}}
receivers:
  - name: controller
    webhook_configs:
      - url: {url}/api/v1/alerts
        send_resolved: true
        http_config: {{authorization: {{credentials_file: {token}}}}}
"""


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


def alertmanager(folder: Path, port: int) -> list[str]:
    return [
        ALERTMANAGER,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / str(port)}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",  # neither knows of the other: everything is sent twice
    ]


def test_a_pair_that_repeats_itself_starts_one_run_and_its_end_is_noted(
    world: Any, waiting: Any, free_ports: Any
) -> None:
    world.validated("flights", 3)
    port, *pair = free_ports(3)
    url = f"http://127.0.0.1:{port}"
    (world.folder / "alertmanager.yml").write_text(CONFIG.format(url=url, token=world.folder / "token"))
    controller = {**world.platform.to_environment(), "PERENNIAL_PORT": str(port)}
    headers = {"Authorization": "Bearer correct-horse"}

    def row() -> dict[str, Any] | None:
        rows = httpx.get(f"{url}/api/v1/pipelines/flights/decisions", headers=headers).json()["decisions"]
        assert len(rows) <= 1, "one alert, one row"
        return dict(rows[0]) if rows else None

    def found(key: str) -> Any:
        return (row() or {}).get(key)

    def answers(address: str) -> bool:
        try:
            return httpx.get(address).status_code == 200
        except httpx.HTTPError:
            return False

    with ExitStack() as parts:
        parts.enter_context(running([sys.executable, "-m", "perennial_controller"], world.folder / "log", controller))
        for one in pair:
            parts.enter_context(running(alertmanager(world.folder, one), world.folder / "log"))
        for address in (f"{url}/readyz", *(f"http://127.0.0.1:{one}/-/ready" for one in pair)):
            waiting(lambda address=address: answers(address), address)
        now = datetime.now(UTC)
        alert = {
            "labels": {
                "alertname": "PerennialFeatureDrift",
                "pipeline": "flights",
                "action": "retrain",
                "feature": "temp",
            },
            "annotations": {"summary": "temp has drifted"},
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=1)).isoformat(),
        }
        for one in pair:
            assert httpx.post(f"http://127.0.0.1:{one}/api/v2/alerts", json=[alert]).status_code == 200
        waiting(lambda: found("delivery") == "delivered", "the delivery")
        waiting(lambda: found("duplicates") >= 1, "the other's copy")
        for one in pair:
            ended = {**alert, "endsAt": datetime.now(UTC).isoformat()}
            assert httpx.post(f"http://127.0.0.1:{one}/api/v2/alerts", json=[ended]).status_code == 200
        waiting(lambda: found("resolved_at"), "the end of the alert")
    (run,) = world.airflow.of("flights")
    assert run["conf"]["reason"]["summary"] == "temp has drifted"
    assert len(world.airflow.posts) == 1, json.dumps(world.airflow.posts)
