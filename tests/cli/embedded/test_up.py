"""What `up` decides before anything starts."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from perennial_cli.embedded import connection
from perennial_cli.embedded.graph import levels
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.lock import held
from perennial_cli.embedded.ports import free_ports
from perennial_cli.embedded.secrets import ensure_secrets
from perennial_cli.embedded.up import Options, make_plan, start
from perennial_spec.errors import PlatformError

PROJECT = Path(__file__).resolve().parents[3]
ALL = {
    *("postgres", "databases", "mlflow", "prometheus", "alertmanager", "server", "controller", "quality"),
    *("airflow-migrate", "airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Home:
    home = Home(tmp_path / "state")
    home.prepare()
    return home


def options(home: Home, **changes: object) -> Options:
    return Options(PROJECT, home.path, **{"port_base": 0, **changes})  # type: ignore[arg-type]


def test_the_plan_has_every_part_and_their_needs_can_be_met(folder: Home) -> None:
    plan = make_plan(folder, options(folder))
    assert {part.name for part in plan.parts} == ALL
    assert levels(plan.parts)


def test_no_secret_is_on_a_command_line(folder: Home) -> None:
    plan = make_plan(folder, options(folder))
    secrets = ensure_secrets(folder)
    words = " ".join(word for part in plan.parts for word in part.command)
    for secret in (secrets.postgres_password, secrets.airflow_jwt, secrets.token_file.read_text()):
        assert secret not in words


def test_steps_and_servers_are_not_told_the_ledgers_password(folder: Home) -> None:
    plan = make_plan(folder, options(folder))
    told = {part.name for part in plan.parts if "PERENNIAL_DATABASE_URL" in part.environment}
    assert told == {"controller", "databases", "airflow-migrate"}


def test_a_taken_port_stops_it_before_anything_is_written(folder: Home) -> None:
    base = _consecutive_free_ports()
    taken = pytest.raises(PlatformError, match=f"port {base + 1} of mlflow is taken")
    with socket.create_server(("127.0.0.1", base + 1)), taken:
        start(options(folder, port_base=base))
    assert not folder.plan.exists()
    assert not folder.platform.exists()


def _consecutive_free_ports() -> int:
    for _ in range(50):
        base = free_ports(1)[0]
        try:
            sockets = [socket.create_server(("127.0.0.1", base + offset)) for offset in range(8)]
        except OSError:
            continue
        for one in sockets:
            one.close()
        return base
    raise AssertionError("no eight free ports in a row")


def test_a_port_of_a_part_that_is_left_out_may_be_taken(folder: Home) -> None:
    base = _consecutive_free_ports()
    with socket.create_server(("127.0.0.1", base + 1)):
        plan = make_plan(folder, options(folder, port_base=base, without=frozenset({"mlflow"})))
    assert "mlflow" not in {part.name for part in plan.parts}


def test_the_port_base_is_remembered(folder: Home) -> None:
    base = _consecutive_free_ports()
    make_plan(folder, options(folder, port_base=base))
    again = make_plan(folder, options(folder, port_base=None))
    assert {part.address for part in again.parts if part.name == "mlflow"} == {f"http://127.0.0.1:{base + 1}"}


def test_a_settings_file_that_is_damaged_is_as_none(folder: Home) -> None:
    folder.settings.write_text("{")
    plan = make_plan(folder, options(folder, port_base=0))
    assert plan.parts


def test_other_commands_find_the_endpoints_of_a_running_platform(folder: Home) -> None:
    plan = make_plan(folder, options(folder))
    with held(folder.lock) as mine:
        assert mine
        # The lock counts between processes and between open files alike.
        platform = connection.load(folder.path)
        told = connection.environment(folder.path)
    assert platform.mlflow_url == next(part.address for part in plan.parts if part.name == "mlflow")
    assert json.loads(Path(platform.need("airflow_credentials_file")).read_text()).keys() == {"username", "password"}
    assert told["PERENNIAL_CONTROLLER_URL"] == platform.controller_url
    assert folder.platform.stat().st_mode & 0o077 == 0


def test_without_a_running_platform_the_error_says_how_to_start_it(folder: Home) -> None:
    make_plan(folder, options(folder))
    with pytest.raises(PlatformError, match="not running") as caught:
        connection.load(folder.path)
    assert "perennial up" in caught.value.next


def test_endpoints_of_another_version_are_refused(folder: Home) -> None:
    folder.platform.write_text('{"unheard_of": 1}')
    with held(folder.lock), pytest.raises(PlatformError, match="endpoints cannot be read"):
        connection.load(folder.path)
