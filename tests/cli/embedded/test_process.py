from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil

from perennial_cli.embedded.part import Answers
from perennial_cli.embedded.probe import is_ready
from perennial_cli.embedded.process import Reaper, child_environment, find, is_alive, marked, seen, terminate

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def test_a_process_is_recognised_by_pid_and_creation_time() -> None:
    me = seen(psutil.Process())
    assert find(me) is not None
    assert find(replace(me, created=me.created - 60)) is None


def test_a_process_that_ended_but_was_not_collected_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(child.pid)
    as_seen = seen(process)
    deadline = time.monotonic() + 20
    while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert find(as_seen) is None
    assert not is_alive(process)
    child.wait()


def test_a_child_that_has_just_ended_is_left_to_who_waits_for_it_and_collected_only_later() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process, reaper = psutil.Process(child.pid), Reaper()
    deadline = time.monotonic() + 20
    while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reaper.look(now=0.0) == []
    assert reaper.look(now=Reaper.PATIENCE - 1) == []
    assert reaper.look(now=Reaper.PATIENCE, known=[child.pid]) == []
    assert child.wait(10) == 3

    orphan = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(orphan.pid)
    while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    reaper.look(now=100.0)
    assert orphan.pid in reaper.look(now=100.0 + Reaper.PATIENCE)
    assert not psutil.pid_exists(orphan.pid)


def test_a_failing_health_check_is_not_taken_for_a_good_one_while_children_are_collected() -> None:
    reaper, over = Reaper(), threading.Event()

    def collect() -> None:
        while not over.is_set():
            reaper.look(time.monotonic())

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        assert not any(is_ready(Answers(("false",)), started=0.0) for _ in range(100))
    finally:
        over.set()
        thread.join()


def test_a_process_that_ignores_the_polite_signal_is_killed() -> None:
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    assert terminate([psutil.Process(child.pid)], grace=0.2) == 1
    assert child.wait(10) == -9


def test_processes_are_found_by_the_instance_that_they_carry() -> None:
    environment = {**os.environ, "PERENNIAL_INSTANCE": "only-this-test"}
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment)
    try:
        assert [process.pid for process in marked("only-this-test")] == [child.pid]
        assert marked("another") == []
    finally:
        child.kill()
        child.wait()


def test_the_users_own_settings_do_not_reach_the_parts_and_loopback_passes_no_proxy() -> None:
    mine = {
        "PATH": "/bin",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW_HOME": "/x",
        "MLFLOW_TRACKING_URI": "http://elsewhere",
        "PGHOST": "elsewhere",
        "PERENNIAL_DATABASE_URL": "postgresql://elsewhere",
        "PERENNIAL_SERVING_MAX_ROWS": "5",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "internal",
    }
    told = child_environment(mine, {"PERENNIAL_PORT": "1"})
    assert told == {
        "PATH": "/bin",
        "PERENNIAL_SERVING_MAX_ROWS": "5",
        "PERENNIAL_PORT": "1",
        "NO_PROXY": "internal,127.0.0.1,localhost",
        "no_proxy": "internal,127.0.0.1,localhost",
    }
