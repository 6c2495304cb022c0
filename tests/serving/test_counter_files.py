"""Counters of several processes in files: their sum is what was counted, whoever dies, comes back or lets go meanwhile."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perennial_features.attribution import Attribution
from perennial_serving.counter_files import CounterFiles
from perennial_serving.post import Roll
from perennial_spec.errors import PlatformError

SERIES = [("distance", str(n)) for n in range(300)]
REFERENCE: Any = SimpleNamespace(
    series=SERIES, shares=np.full(300, 1 / 300), rows=1000, ranged=("distance",), attribution=None
)


@dataclass(frozen=True, eq=False)
class Model:
    """What the files need of a `LoadedModel`."""

    version: str
    reference: Any
    pipeline: str = "flights"
    counters: Any = None


def held(files: CounterFiles, version: str = "1", reference: Any = REFERENCE) -> Any:
    model: Any = Model(version, reference)
    return files.counting(model)


def rows(files: CounterFiles) -> dict[str, int]:
    """By version."""
    return {text.version: counted.rows for text, counted in files.versions()}


def test_every_worker_sees_the_sum_of_all(tmp_path: Path) -> None:
    workers = [CounterFiles(tmp_path, slot) for slot in range(3)]
    for slot, files in enumerate(workers):
        model = held(files)
        model.counters.observe(np.arange(300), slot + 1)
        model.counters.values[300] += 10 * slot
        model.counters.requests("oip", 200, [0.001, 0.2])
        files.counters.labels["flights"] += slot
        files.counters.reward_sums["flights", "1"] += 0.5
    for files in workers:
        ((text, counted),) = files.versions()
        assert (text.pipeline, text.version, counted.rows) == ("flights", "1", 6)
        assert counted.bins == [3 * n for n in range(300)]
        assert counted.out_of_range == [30]
        assert text.out_of_range(counted) == (
            'perennial_feature_out_of_range_total{pipeline="flights",version="1",feature="distance"} 30\n'
        )
        assert (counted.requests["oip", 200], sum(counted.latency)) == (6, 6)
        assert files.tables()["labels"] == {("flights",): 3}
        assert files.tables()["reward_sums"] == {("flights", "1"): 1.5}
    assert workers[0].counters.labels["other"] == 0
    workers[0].counters.labels["other"] += 1  # a name that came later
    assert workers[2].tables()["labels"]["other",] == 1


def test_attributions_of_all_workers_add_up_exactly(tmp_path: Path) -> None:
    attribution = Attribution(features=("distance", "hour"), shares=(0.75, 0.25), scale=2.0, noise=0.7, rows=100)
    reference: Any = SimpleNamespace(
        series=SERIES, shares=np.full(300, 1 / 300), rows=1000, ranged=("distance",), attribution=attribution
    )
    workers = [CounterFiles(tmp_path, slot) for slot in range(3)]
    for slot, files in enumerate(workers):
        model = held(files, reference=reference)
        model.counters.explained(np.array([[-1.5, 0.5], [0.25, -0.25]]), unexplained=slot)
        model.counters.observe(np.ones(300, dtype=np.int64), 2)
    ((text, counted),) = workers[0].versions()
    assert (counted.explained, counted.unexplained, set(counted.bins)) == (6, 3, {3})
    assert [float(line.rsplit(" ", 1)[1]) for line in text.attributions(counted).splitlines()] == [5.25, 2.25]


CHILD = """
import os, sys
sys.path.insert(0, {here!r})
from test_counter_files import CounterFiles, Path, held
files = CounterFiles(Path({folder!r}), 1)
models = [held(files, version=version) for version in sys.argv[1:]]
for model in models:
    model.counters.predicted(10)
    files.counters.shed["flights"] += 1
print("counted", flush=True)
sys.stdin.read()
"""


def worker(folder: Path, *versions: str) -> subprocess.Popen[str]:
    """A process at slot 1 that has these versions and has counted 10 rows for each."""
    code = CHILD.format(here=str(Path(__file__).parent), folder=str(folder))
    command = [sys.executable, "-c", code, *versions]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_worker_takes_no_count_with_it_and_the_next_goes_on(tmp_path: Path) -> None:
    files = CounterFiles(tmp_path, 0)
    model = held(files)
    model.counters.predicted(1)
    for times in (1, 2, 3):
        process = worker(tmp_path, "1")
        assert rows(files) == {"1": 1 + 10 * times}
        killed(process)
        assert rows(files) == {"1": 1 + 10 * times}
        assert files.tables()["shed"] == {("flights",): times}
    assert held(files).counters is not model.counters


def test_a_version_is_exported_until_the_last_has_let_go_and_then_begins_at_0(tmp_path: Path) -> None:
    one, two = CounterFiles(tmp_path, 0), CounterFiles(tmp_path, 1)
    mine, other = held(one), held(two)
    mine.counters.predicted(5)
    other.counters.predicted(7)
    del mine
    gc.collect()
    assert rows(one) == rows(two) == {"1": 12}
    del other
    gc.collect()
    assert rows(one) == rows(two) == {}
    assert not list((tmp_path / "versions").iterdir())
    again = held(one)
    assert rows(two) == {"1": 0}
    assert again.counters.rows == 0


def test_what_killed_workers_left_is_swept_and_what_is_held_is_not(tmp_path: Path) -> None:
    files = CounterFiles(tmp_path, 0)
    mine = held(files)
    killed(worker(tmp_path, "1", "2"))
    assert rows(files) == {"1": 10, "2": 10}
    files.sweep()
    assert rows(files) == {"1": 10}
    assert mine.counters.rows == 0


def test_of_two_versions_of_one_name_the_newest_is_exported(tmp_path: Path) -> None:
    files = CounterFiles(tmp_path, 0)
    old = held(files)
    old.counters.predicted(5)
    other: Any = SimpleNamespace(series=SERIES[:3], shares=np.full(3, 1 / 3), rows=9, ranged=(), attribution=None)
    new = held(files, reference=other)
    new.counters.predicted(2)
    ((text, counted),) = files.versions()
    assert (counted.rows, text.reference_rows.rstrip()[-2:]) == (2, " 9")


def test_holding_and_letting_go_at_once_loses_no_folder(tmp_path: Path) -> None:
    """Threads stand for workers: locks belong to open files, not to processes."""
    workers = [CounterFiles(tmp_path, slot) for slot in range(4)]
    failures: list[str] = []

    def come_and_go(files: CounterFiles) -> None:
        for _ in range(60):
            model = held(files)
            model.counters.predicted(1)
            if rows(files).get("1", 0) < 1:
                failures.append("what this worker counted is not seen")
            del model

    threads = [threading.Thread(target=come_and_go, args=(files,)) for files in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failures, rows(workers[0])) == ([], {})


def test_the_roll_says_who_is_there(tmp_path: Path) -> None:
    files = CounterFiles(tmp_path, 0)
    Roll(os.getpid(), (os.getppid(), 2**22 + 1), answering=2).write(tmp_path)
    assert files.workers() == 2
    text = files.processes()
    alone = float(text.split("\nprocess_resident_memory_bytes ")[1].split()[0])
    Roll(os.getpid(), (), answering=2).write(tmp_path)
    assert alone > float(files.processes().split("\nprocess_resident_memory_bytes ")[1].split()[0])


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(PlatformError, match="the counters of the workers have no place: No such file") as error:
        CounterFiles(Path("/proc/nowhere"), 0)
    assert (error.value.where, error.value.next) == ("/proc/nowhere", "make room there")


def test_a_folder_without_room_is_an_error_and_no_signal(tmp_path: Path) -> None:
    code = (
        "import resource, pathlib, perennial_serving.counter_files as c;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        f"c.CounterFiles(pathlib.Path({str(tmp_path)!r}), 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "the counters of the workers have no place: File too large" in found.stderr
