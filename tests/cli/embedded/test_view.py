from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from perennial_cli.embedded.home import Home
from perennial_cli.embedded.process import Seen
from perennial_cli.embedded.state import PartState, PartStatus, PlatformState
from perennial_cli.embedded.view import StartProgress, answering, as_document, failures, table


def platform(*parts: PartState) -> PlatformState:
    return PlatformState(Seen(7, 1.0), "instance", 1.0, parts=parts)


def shown(*states: PlatformState, terminal: bool = False) -> str:
    text = io.StringIO()
    with StartProgress(Console(file=text, force_terminal=terminal, width=120)) as progress:
        for state in states:
            progress(state)
    return text.getvalue()


def web(status: PartStatus, **changes: object) -> PlatformState:
    return platform(PartState("web", status=status, **changes))  # type: ignore[arg-type]


def test_without_a_terminal_each_change_is_one_line() -> None:
    text = shown(web("waiting"), web("starting"), web("starting"), web("ready", took=1.25))
    lines = [line.split(" s  ", 1)[1].split() for line in text.splitlines()]
    assert lines == [["web", "starting"], ["web", "ready", "after", "1.2", "s"]]
    assert "\x1b" not in text


def test_the_reason_of_a_restart_is_in_its_line() -> None:
    assert "ended with exit code 3" in shown(web("starting"), web("restarting", message="ended with exit code 3"))


def test_nothing_is_said_about_a_platform_that_was_healthy_from_the_start() -> None:
    assert shown(web("ready")) == ""


def test_on_a_terminal_the_table_is_drawn_in_place_and_no_lines_are_added() -> None:
    text = shown(web("waiting"), web("starting"), terminal=True)
    assert "\x1b" in text
    assert " s  web" not in text


def test_the_table_has_state_pid_uptime_restarts_and_address() -> None:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(table(web("ready", pid=42, started=0.0, restarts=3, address="http://127.0.0.1:1")))
    header, line = console.export_text().splitlines()
    assert header.split() == ["part", "state", "pid", "uptime", "restarts", "address"]
    cells = line.split()
    assert (cells[0], cells[1], cells[2], cells[4], cells[5]) == ("web", "ready", "42", "3", "http://127.0.0.1:1")


def test_failures_bring_the_last_lines_of_the_log(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    home.log("web").write_text("no space left\n")
    (text,) = failures(home, web("failing", message="ended with exit code 1"))
    assert "web: ended with exit code 1" in text
    assert "no space left" in text
    assert failures(home, web("ready")) == []


def test_an_optional_part_does_not_make_the_document_unhealthy(tmp_path: Path) -> None:
    state = platform(PartState("web", status="ready"), PartState("extra", status="failing", optional=True))
    document = as_document(Home(tmp_path), state)
    assert document["healthy"] is True
    assert [part["status"] for part in document["parts"]] == ["ready", "failing"]


def test_only_a_part_that_is_ready_and_has_an_address_can_be_asked() -> None:
    url = "http://127.0.0.1:1"
    assert answering(web("ready", address=url), "web") == [url]
    assert answering(web("ready"), "web") == []
    assert answering(web("failing", address=url), "web") == []
    assert answering(web("ready", address=url), "other") == []
    assert answering(None, "web") == []
