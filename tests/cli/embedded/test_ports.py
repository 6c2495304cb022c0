from __future__ import annotations

import socket

import pytest

from perennial_cli.embedded.ports import HOST, Ports, check_ports, choose_ports, free_ports, ports_of
from perennial_spec.errors import PlatformError


def test_without_a_base_each_part_has_its_usual_port() -> None:
    assert choose_ports(None) == Ports()


def test_a_base_gives_consecutive_ports() -> None:
    assert sorted(ports_of(choose_ports(18000)).values()) == list(range(18000, 18008))


def test_base_zero_gives_different_ports_that_can_be_bound() -> None:
    chosen = ports_of(choose_ports(0))
    assert len(set(chosen.values())) == len(chosen)
    check_ports(chosen)


@pytest.mark.parametrize("base", [-1, 80, 65530, 70000])
def test_a_base_outside_the_range_is_refused(base: int) -> None:
    with pytest.raises(PlatformError, match=f"{base} is not a usable port base"):
        choose_ports(base)


def test_a_taken_port_names_the_part_the_port_the_holder_and_what_to_do() -> None:
    import os

    free = free_ports(1)[0]
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PlatformError) as caught:
            check_ports({"mlflow": port, "airflow": free})
    text = str(caught.value)
    assert f"port {port} of mlflow is taken by" in text
    assert f"(pid {os.getpid()})" in text
    assert "--port-base" in text
    assert "airflow" not in text


def test_a_connection_that_is_still_closing_does_not_make_a_port_taken() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)):
            accepted, _ = server.accept()
            accepted.close()
    check_ports({"mlflow": port})
