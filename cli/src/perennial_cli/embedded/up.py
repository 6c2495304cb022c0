"""Bring the whole platform up in a state folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from perennial_cli.embedded import connection, graph, ports, prometheus, supervisor
from perennial_cli.embedded.home import Home, write_private
from perennial_cli.embedded.part import Part, Plan
from perennial_cli.embedded.parts import LISTENS, platform_of, platform_parts
from perennial_cli.embedded.secrets import ensure_secrets

SECONDS = 300.0
"""How long the platform may take to be ready."""


@dataclass(frozen=True)
class Options:
    """What `up` may be told."""

    project: Path
    """The folder with `dags/` and `monitoring/`."""
    home: Path
    """The state folder."""
    port_base: int | None = None
    """First of consecutive ports; 0: free ones; None: as last time, at first the default ports."""
    without: frozenset[str] = frozenset()
    """Parts that are not started."""
    timeout: float = SECONDS


def start(options: Options, progress: supervisor.Progress | None = None) -> bool:
    """Start the platform unless it runs, and wait until it is healthy.

    Returns:
        True when this call started it, False when it was running already.

    Raises:
        PlatformError: a port is taken, a program is missing, or a part does not come up. What runs is left running, for
            `perennial status` and `perennial logs`.
    """
    home = supervisor.home_at(options.home)
    return supervisor.launch(home, lambda: make_plan(home, options), timeout=options.timeout, progress=progress)


def make_plan(home: Home, options: Options) -> Plan:
    """Ports, secrets, configuration and parts; all that is written is in the state folder."""
    base = options.port_base if options.port_base is not None else _last_port_base(home)
    chosen = ports.choose_ports(base)
    secrets = ensure_secrets(home)
    parts = graph.without(platform_parts(home, options.project, chosen, secrets), options.without)
    ports.check_ports(_listening(parts, chosen))
    prometheus.write_configuration(home, options.project, chosen, secrets.token_file)
    connection.save(home, platform_of(home, options.project, chosen, secrets))
    write_private(home.settings, json.dumps({"port_base": base}) + "\n")
    return Plan(home.instance(), parts)


def _listening(parts: tuple[Part, ...], chosen: ports.Ports) -> dict[str, int]:
    names = {part.name for part in parts}
    return {LISTENS[field]: port for field, port in ports.ports_of(chosen).items() if LISTENS[field] in names}


def _last_port_base(home: Home) -> int | None:
    try:
        base = json.loads(home.settings.read_text())["port_base"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return base if isinstance(base, int) else None
