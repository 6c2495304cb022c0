from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from perennial_operators import process
from perennial_operators.process import Child

PYTHON = Path(sys.executable)


def child(body: str, folder: Path) -> Child:
    return Child([str(PYTHON), "-c", textwrap.dedent(body)], {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}, folder)


def is_gone(pid: int, patience: float = 10.0) -> bool:
    """Ended, or a zombie that only waits for whoever adopted it."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_lines_come_as_they_are_written_from_both_streams(tmp_path: Path) -> None:
    with child("import sys; print('one'); print('two', file=sys.stderr); print('', end='three')", tmp_path) as running:
        assert list(running.lines()) == ["one", "two", "three"]
        assert running.wait() == 0


def test_a_line_is_seen_while_the_child_still_runs(tmp_path: Path) -> None:
    with child("import time; print('started'); time.sleep(600)", tmp_path) as running:
        assert next(running.lines()) == "started"
        assert running._process.poll() is None
    assert is_gone(running.pid)


def test_the_exit_code_is_the_childs(tmp_path: Path) -> None:
    with child("raise SystemExit(11)", tmp_path) as running:
        assert list(running.lines()) == []
        assert running.wait() == 11


def test_undecodable_and_endless_lines_do_no_harm(tmp_path: Path) -> None:
    body = "import sys; sys.stdout.buffer.write(b'\\xff\\n' + b'x' * 100_000 + b'\\nlast')"
    with child(body, tmp_path) as running:
        lines = list(running.lines())
    assert lines[0] == "\N{REPLACEMENT CHARACTER}"
    assert "".join(lines[1:-1]).count("x") + lines[-1].count("x") == 100_000
    assert lines[-1].endswith("last")


def test_stopping_ends_a_child_that_listens(tmp_path: Path) -> None:
    with child("import time; print('up'); time.sleep(600)", tmp_path) as running:
        lines = running.lines()
        next(lines)
        running.request_stop()
        assert list(lines) == []
        assert running.wait() == -signal.SIGTERM


def test_stopping_ends_a_child_that_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)
    body = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    with child(body, tmp_path) as running:
        lines = running.lines()
        next(lines)
        running.request_stop()
        assert list(lines) == []
        assert running.wait() == -signal.SIGKILL


def test_grandchildren_end_with_the_child(tmp_path: Path) -> None:
    body = """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    """
    with child(body, tmp_path) as running:
        (grandchild,) = map(int, running.lines())  # it holds the pipe open, and is not waited for
        assert running.wait() == 0
    assert is_gone(grandchild)


def test_an_exception_in_the_caller_ends_the_child(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="reader"),
        child("import time; print(1); time.sleep(600)", tmp_path) as running,
    ):
        for _ in running.lines():
            raise RuntimeError("the reader gave up")
    assert is_gone(running.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel ends a child with its parent")
def test_a_caller_that_is_killed_takes_the_child_along(tmp_path: Path) -> None:
    caller = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(process.__file__).parent)!r})  # without the package, which imports Airflow
        from process import Child
        with Child([sys.executable, "-c", "import time; time.sleep(600)"], {{}}, Path(".")) as child:
            print(child.pid, flush=True)
            list(child.lines())
    """
    with subprocess.Popen([PYTHON, "-c", textwrap.dedent(caller)], stdout=subprocess.PIPE, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    assert is_gone(pid)


def test_the_child_has_the_given_environment_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOT_FOR_THE_CHILD", "1")
    with child("import os; print('NOT_FOR_THE_CHILD' in os.environ, os.getcwd())", tmp_path) as running:
        assert list(running.lines()) == [f"False {tmp_path}"]
