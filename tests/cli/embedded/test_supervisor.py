"""The supervisor with tiny real parts: real processes, signals, sockets and files."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from perennial_cli.embedded import supervisor
from perennial_cli.embedded.home import Home
from perennial_cli.embedded.part import Answers, Part, Plan
from perennial_cli.embedded.state import PartState, PlatformState, read_state
from perennial_spec.errors import PlatformError

Make = Callable[..., Part]
Launch = Callable[..., PlatformState]

FAMILY = """
import os, subprocess, sys, time
# A grandchild in a session of its own, whose parent does not wait for it, as Airflow's workers have.
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
if os.fork() == 0:
    time.sleep(600)
time.sleep(600)
"""


NEVER = Answers(("false",))


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def named(home: Home, name: str) -> PartState:
    state = supervisor.status(home)
    assert state is not None
    return next(part for part in state.parts if part.name == name)


def family(home: Home) -> list[int]:
    state = read_state(home)
    return [one.pid for one in state.processes] if state else []


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_parts_start_in_order_answer_and_end(
    home: Home, launch: Launch, web: Make, script: Make, tmp_path: Path
) -> None:
    mark = tmp_path / "made"
    prepare = script("prepare", f"open({str(mark)!r}, 'w')", kind="task")
    late = script("late", f"import time; open({str(mark)!r}); time.sleep(600)", needs=("prepare",))
    site = web(needs=("late",))
    state = launch(site, late, prepare)
    assert [part.status for part in state.parts] == ["ready", "ready", "done"]
    with urllib.request.urlopen(str(site.address), timeout=5) as answer:
        assert answer.status == 200
    pids = [state.supervisor.pid, *(part.pid for part in state.parts if part.pid)]
    stopped = supervisor.stop(home)
    assert stopped.was_running
    assert stopped.leftovers == 0
    assert gone(pids)
    assert supervisor.status(home) is None


def test_a_second_start_finds_the_first(home: Home, web: Make) -> None:
    parts = (web(),)
    assert supervisor.launch(home, lambda: Plan(home.instance(), parts), timeout=60)
    first = supervisor.status(home)

    def no_plan() -> Plan:
        raise AssertionError("a running platform needs no plan")

    assert not supervisor.launch(home, no_plan, timeout=60)
    second = supervisor.status(home)
    assert first and second
    assert second.supervisor == first.supervisor
    assert second.parts == first.parts


def test_two_platforms_live_side_by_side_and_end_apart(home: Home, launch: Launch, web: Make, tmp_path: Path) -> None:
    launch(web())
    other = supervisor.home_at(tmp_path / "other")
    supervisor.launch(other, lambda: Plan(other.instance(), (web(),)), timeout=60)
    try:
        supervisor.stop(home)
        state = supervisor.status(other)
        assert state
        assert state.healthy
    finally:
        supervisor.stop(other)


def test_a_part_that_crashes_is_started_again(home: Home, launch: Launch, web: Make) -> None:
    pid = launch(web()).parts[0].pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: named(home, "web").restarts == 1 and named(home, "web").status == "ready")
    assert named(home, "web").pid != pid


def test_a_part_that_dies_again_and_again_is_reported_with_its_last_words(
    home: Home, launch: Launch, script: Make
) -> None:
    broken = script("broken", "print('the disk is upside down'); raise SystemExit(7)", ready=NEVER)
    with pytest.raises(PlatformError, match="'broken' dies again and again: ended with exit code 7") as caught:
        launch(broken)
    assert "the disk is upside down" in str(caught.value)
    assert str(home.log("broken")) in str(caught.value)
    assert named(home, "broken").status == "failing"


def test_once_mended_the_next_start_succeeds_at_once(home: Home, launch: Launch, script: Make, tmp_path: Path) -> None:
    cure = tmp_path / "cure"
    # Ready only when it has lived through its first line.
    broken = script(
        "broken", f"import time; open({str(cure)!r}); time.sleep(600)", ready=Answers(("test", "-e", str(cure)))
    )
    with pytest.raises(PlatformError, match="dies again and again"):
        launch(broken)
    cure.touch()
    assert launch(broken).healthy


def test_an_optional_part_that_dies_does_not_keep_the_platform_from_being_healthy(
    launch: Launch, web: Make, script: Make
) -> None:
    assert launch(web(), script("extra", "raise SystemExit(1)", optional=True)).healthy


def test_a_program_that_does_not_exist_is_named(home: Home, launch: Launch) -> None:
    with pytest.raises(PlatformError, match=r"'ghost' dies again and again: cannot be started: .*no-such-program"):
        launch(Part("ghost", ("/no-such-program",)))


def test_a_part_that_never_gets_ready_is_named_when_time_is_over(home: Home, launch: Launch, script: Make) -> None:
    silent = script("silent", "import time; print('thinking', flush=True); time.sleep(600)", ready=NEVER)
    with pytest.raises(PlatformError, match=r"not ready within 2 s: silent is starting") as caught:
        launch(silent, timeout=2.0)
    assert "thinking" in str(caught.value)


def test_a_part_that_is_too_slow_to_get_ready_is_ended_and_tried_again(home: Home, script: Make) -> None:
    silent = script("silent", "import time; time.sleep(600)", ready=NEVER, ready_seconds=0.3)
    with pytest.raises(PlatformError, match="'silent' dies again and again: was not ready within 0 s"):
        supervisor.launch(home, lambda: Plan(home.instance(), (silent,)), timeout=60)


def test_stopping_ends_grandchildren_that_left_their_session(home: Home, launch: Launch, script: Make) -> None:
    launch(script("family", FAMILY))
    eventually(lambda: len(family(home)) == 3)
    pids = family(home)
    supervisor.stop(home)
    assert gone(pids)


def test_a_crashed_part_leaves_no_children_behind(home: Home, launch: Launch, script: Make) -> None:
    launch(script("family", FAMILY))
    eventually(lambda: len(family(home)) == 3)
    before = family(home)
    parent = named(home, "family").pid
    assert parent
    os.kill(parent, signal.SIGKILL)
    eventually(lambda: named(home, "family").restarts == 1 and named(home, "family").status == "ready")
    assert gone(before)


def test_a_part_that_ignores_the_polite_signal_is_killed(home: Home, launch: Launch, script: Make) -> None:
    stubborn = script(
        "stubborn",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
        stop_seconds=0.5,
    )
    pid = launch(stubborn).parts[0].pid
    assert pid
    supervisor.stop(home)
    assert gone([pid])


def test_what_a_killed_supervisor_left_behind_is_ended_by_down(
    home: Home, launch: Launch, web: Make, script: Make
) -> None:
    state = launch(web(), script("family", FAMILY))
    eventually(lambda: len(family(home)) == 4)
    pids = family(home)
    os.kill(state.supervisor.pid, signal.SIGKILL)
    eventually(lambda: not supervisor.is_running(home))
    assert supervisor.status(home) is None
    stopped = supervisor.stop(home)
    assert not stopped.was_running
    assert stopped.leftovers == 4
    assert gone(pids)


def test_after_a_killed_supervisor_the_next_start_replaces_what_it_left(home: Home, launch: Launch, web: Make) -> None:
    site = web()
    first = launch(site)
    os.kill(first.supervisor.pid, signal.SIGKILL)
    eventually(lambda: not supervisor.is_running(home))
    # The same port: it can only be had when the leftover is gone.
    second = launch(site)
    assert second.healthy
    assert second.parts[0].pid != first.parts[0].pid
    assert gone([pid for pid in (first.parts[0].pid,) if pid])


def test_everything_killed_starts_again(launch: Launch, web: Make, kill_everything: Callable[[], list[int]]) -> None:
    site = web()
    launch(site)
    kill_everything()
    assert launch(site).healthy


def test_stopping_what_never_ran_finds_nothing(tmp_path: Path) -> None:
    stopped = supervisor.stop(Home(tmp_path / "nowhere"))
    assert not stopped.was_running
    assert stopped.leftovers == 0


def test_secrets_of_the_plan_are_for_the_owner_only_and_not_on_the_command_line(
    home: Home, launch: Launch, web: Make
) -> None:
    state = launch(web(environment={"PASSWORD": "hidden-word"}))
    assert home.plan.stat().st_mode & 0o077 == 0
    for pid in (state.supervisor.pid, state.parts[0].pid):
        assert "hidden-word" not in " ".join(psutil.Process(pid).cmdline())
    assert "hidden-word" not in home.log("supervisor").read_text()


def test_circular_needs_are_refused_before_anything_starts(home: Home, launch: Launch) -> None:
    with pytest.raises(PlatformError, match="circle"):
        launch(Part("a", ("true",), needs=("b",)), Part("b", ("true",), needs=("a",)))
    assert not supervisor.is_running(home)
