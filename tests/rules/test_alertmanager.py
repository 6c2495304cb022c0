"""Who is told: the template as it is, and with its example of a receiver for people."""

from __future__ import annotations

import re
import string
import subprocess
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "monitoring" / "alertmanager" / "alertmanager.yml.template"
COMMENTED = re.compile(r"^  # (?=routes:|- name: on-call| )", re.MULTILINE)
"""The lines of the example; other comments begin with a word."""


def routed(file: Path, severity: str) -> str:
    """The receivers of an alert, as Alertmanager's own tool says."""
    command = ["amtool", "config", "routes", "test", f"--config.file={file}", f"severity={severity}", "pipeline=demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture
def text() -> str:
    return string.Template(TEMPLATE.read_text()).substitute(
        controller_url="http://127.0.0.1:1", token_file="/run/token"
    )


@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_every_alert_goes_to_the_controller_and_nobody_else(tmp_path: Path, text: str, severity: str) -> None:
    (tmp_path / "a.yml").write_text(text)
    assert routed(tmp_path / "a.yml", severity) == "controller"


@pytest.mark.parametrize(("severity", "receivers"), [("critical", "controller,on-call"), ("warning", "controller")])
def test_the_example_tells_people_of_critical_alerts_too(
    tmp_path: Path, text: str, severity: str, receivers: str
) -> None:
    (tmp_path / "a.yml").write_text(COMMENTED.sub("  ", text))
    assert routed(tmp_path / "a.yml", severity) == receivers
