from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from perennial_cli.embedded import logs


def test_tail_gives_the_last_lines_of_a_large_file(tmp_path: Path) -> None:
    file = tmp_path / "part.log"
    file.write_text("".join(f"line {number}\n" for number in range(50_000)))
    assert logs.tail(file, 3) == ["line 49997", "line 49998", "line 49999"]
    assert len(logs.tail(file, 20_000)) == 20_000


@pytest.mark.parametrize(("text", "lines", "expected"), [("a\nb", 5, ["a", "b"]), ("a\nb\n", 0, []), ("", 5, [])])
def test_tail_of_short_files(tmp_path: Path, text: str, lines: int, expected: list[str]) -> None:
    file = tmp_path / "part.log"
    file.write_text(text)
    assert logs.tail(file, lines) == expected


def test_tail_of_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert logs.tail(tmp_path / "part.log", 5) == []


def test_a_log_that_grew_too_large_keeps_its_end_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "part.log"
    with file.open("a") as writer:
        writer.write("x" * 1000 + "end\n")
        writer.flush()
        logs.bound(tmp_path, largest=100)
        writer.write("next\n")
        writer.flush()
    assert file.read_text() == "next\n"
    kept = (tmp_path / "part.log.1").read_text()
    assert len(kept) == 100
    assert kept.endswith("end\n")


def test_a_log_below_the_bound_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "part.log").write_text("short\n")
    logs.bound(tmp_path, largest=100)
    assert [file.name for file in tmp_path.iterdir()] == ["part.log"]


def test_files_that_are_too_old_are_removed_and_others_stay(tmp_path: Path) -> None:
    old, new = tmp_path / "dag" / "old.log", tmp_path / "dag" / "new.log"
    new.parent.mkdir()
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    logs.prune(tmp_path, days=2)
    assert not old.exists()
    assert new.exists()


def test_follow_shows_what_is_written_and_goes_on_after_a_cut(tmp_path: Path) -> None:
    file = tmp_path / "part.log"
    file.write_text("before\n")
    seen: list[str] = []

    def read() -> None:
        for line in logs.follow(file, pause=0.01):
            seen.append(line)
            if line == "last":
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    _append_until(file, "after\n", seen, "after")
    file.write_text("")
    _append_until(file, "last\n", seen, "last")
    reader.join(10)
    assert "before" not in seen
    assert set(seen) == {"after", "last"}


def _append_until(file: Path, text: str, seen: list[str], expected: str) -> None:
    deadline = time.monotonic() + 20
    while expected not in seen and time.monotonic() < deadline:
        with file.open("a") as stream:
            stream.write(text)
        time.sleep(0.05)
