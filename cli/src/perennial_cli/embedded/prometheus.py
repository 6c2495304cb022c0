"""Prometheus and Alertmanager from the PATH, with configuration made for this platform."""

from __future__ import annotations

import json
import shutil
import string
import sys
from pathlib import Path

from perennial_cli.embedded.home import Home
from perennial_cli.embedded.part import Http, Part
from perennial_cli.embedded.ports import HOST, Ports
from perennial_spec.errors import PlatformError

PROGRAMS = {"prometheus": ("prometheus",), "alertmanager": ("alertmanager", "prometheus-alertmanager")}
"""Names under which upstream and Debian install them."""
JOBS = ("server", "controller", "quality")
"""Parts that are scraped; the job is `perennial-` and the part's name."""
INTERVAL = "1s"
"""Between scrapes, and between evaluations: a loop on one machine is judged in seconds."""
WATCHERS = ("prometheus", "alertmanager")
"""Scraped like the parts, but seldom: nothing is judged by what they tell of themselves, the dashboards show it."""
SELDOM = "15s"


def program(name: str) -> str:
    """Path of a program.

    Raises:
        PlatformError: it is not installed; says how to install it.
    """
    for candidate in PROGRAMS[name]:
        found = shutil.which(candidate)
        if found:
            return found
    how = (
        "brew install prometheus alertmanager"
        if sys.platform == "darwin"
        else "apt-get install prometheus prometheus-alertmanager"
    )
    raise PlatformError(
        f"{name} is not installed",
        where="PATH",
        expected=f"a program named {' or '.join(PROGRAMS[name])}",
        next=f"install it with: {how} (or `make install`, or from https://prometheus.io/download/)",
    )


def configuration(project: Path, ports: Ports) -> dict[str, object]:
    """Prometheus' configuration: rules of the project, the platform's own targets."""
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(file) for file in rule_files(project)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{HOST}:{ports.alertmanager}"]}]}]},
        "scrape_configs": [
            *(_job(part, ports) for part in JOBS),
            *(_job(part, ports) | {"scrape_interval": SELDOM} for part in WATCHERS),
        ],
    }


def _job(part: str, ports: Ports) -> dict[str, object]:
    return {
        "job_name": f"perennial-{part}",
        "static_configs": [{"targets": [f"{HOST}:{getattr(ports, part)}"]}],
    }


def rule_files(project: Path) -> list[Path]:
    """The rules of the project, without their tests."""
    return sorted(file for file in (project / "monitoring" / "rules").glob("*.yml") if "test" not in file.stem)


def alertmanager_configuration(project: Path, ports: Ports, token_file: Path) -> str:
    """The project's template, filled in.

    Raises:
        PlatformError: the template is missing, or asks for something that is not known.
    """
    file = project / "monitoring" / "alertmanager" / "alertmanager.yml.template"
    try:
        template = string.Template(file.read_text())
        return template.substitute(controller_url=ports.url("controller"), token_file=str(token_file))
    except OSError as error:
        raise PlatformError(
            "the template of Alertmanager's configuration cannot be read", where=str(file), expected="a file"
        ) from error
    except (KeyError, ValueError) as error:
        raise PlatformError(
            f"the template of Alertmanager's configuration cannot be filled in: {error}",
            where=str(file),
            expected="only ${controller_url} and ${token_file}; a dollar sign is written $$",
        ) from error


def write_configuration(home: Home, project: Path, ports: Ports, token_file: Path) -> None:
    """Write both configurations into the state folder."""
    for name, text in (
        # JSON is YAML, and needs no further library.
        ("prometheus", json.dumps(configuration(project, ports), indent=2)),
        ("alertmanager", alertmanager_configuration(project, ports, token_file)),
    ):
        folder = home.path / name
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yml").write_text(text)


def parts(home: Home, ports: Ports) -> list[Part]:
    """Both programs.

    Raises:
        PlatformError: one is not installed.
    """
    prometheus, alertmanager = home.path / "prometheus", home.path / "alertmanager"
    return [
        Part(
            name="prometheus",
            command=(
                program("prometheus"),
                f"--config.file={prometheus / 'prometheus.yml'}",
                f"--storage.tsdb.path={prometheus / 'data'}",
                "--storage.tsdb.retention.time=30d",
                "--storage.tsdb.retention.size=1GB",
                f"--web.listen-address={HOST}:{ports.prometheus}",
            ),
            ready=Http(f"{ports.url('prometheus')}/-/ready"),
            address=ports.url("prometheus"),
        ),
        Part(
            name="alertmanager",
            command=(
                program("alertmanager"),
                f"--config.file={alertmanager / 'alertmanager.yml'}",
                f"--storage.path={alertmanager / 'data'}",
                f"--web.listen-address={HOST}:{ports.alertmanager}",
                # No cluster: without this it looks for a private address to gossip on, and fails where there is none.
                "--cluster.listen-address=",
            ),
            ready=Http(f"{ports.url('alertmanager')}/-/ready"),
            address=ports.url("alertmanager"),
        ),
    ]
