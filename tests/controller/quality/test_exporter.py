"""Live quality is what a recomputation from the raw logs says, in whatever order the rows came."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sklearn import metrics as sk

from perennial_controller.quality.exporter import Exporter
from perennial_controller.quality.measures import ALWAYS
from perennial_controller.quality.tail import Tail
from perennial_spec import logs as log_names


def exported(exporter: Exporter) -> dict[str, dict[tuple[str, ...], float]]:
    """Metric name to the values by label."""
    exporter.refresh()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in exporter.collect():
        of = found.setdefault(family.name + "_total" * (family.type == "counter"), {})
        of.update({tuple(sample.labels.values()): sample.value for sample in family.samples})
    return found


def recomputed(flights: Any) -> dict[str, tuple[int, int, dict[str, float]]]:
    """Version to predictions, labels and metrics, from the raw rows by other means."""
    truth: dict[str, float] = {}
    exact: dict[str, float] = {}
    for label in sorted(flights.labels, key=lambda label: label.at):
        (exact if label.prediction else truth)[label.prediction or label.entity] = label.value
    rows = {(row.version, row.id): row for row in flights.predictions if row.at > flights.now - timedelta(hours=1)}
    newest = {(row.version, row.entity or row.id): row for row in sorted(rows.values(), key=lambda row: row.at)}
    found = {}
    for version in {version for version, _ in newest}:
        own = [row for (of, id_), row in rows.items() if of == version and id_ in exact]
        others = [row for (of, _), row in newest.items() if of == version and row.id not in exact]
        others = [row for row in others if row.entity is not None or exact]
        pairs = [(exact[row.id], row.score) for row in own]
        pairs += [(truth[row.entity], row.score) for row in others if row.entity in truth]
        y, p = [y for y, _ in pairs], [p for _, p in pairs]
        values = {"brier": sk.brier_score_loss(y, p), "log_loss": sk.log_loss(y, p), "roc_auc": sk.roc_auc_score(y, p)}
        found[version] = (len(own) + len(others), len(pairs), values)
    return found


def agree(exporter: Exporter, flights: Any) -> None:
    ours, truth = exported(exporter), recomputed(flights)
    assert {key[1] for key in ours["perennial_quality_labels"]} == set(truth)
    for version, (predictions, labels, values) in truth.items():
        assert ours["perennial_quality_labels"]["flights", version] == labels
        assert ours["perennial_quality_labelled_share"]["flights", version] == labels / predictions
        mine = {key[2]: value for key, value in ours["perennial_quality"].items() if key[1] == version}
        mine = {metric: value for metric, value in mine.items() if metric in values}
        assert mine == pytest.approx(values, rel=1e-12)


def figures(exporter: Exporter) -> set[str]:
    """The metrics that say something of a version."""
    found = exported(exporter)
    return {name for name, values in found.items() if any(len(key) > 1 and key[1] == "1" for key in values)}


def rows(flights: Any, prediction: Any, label: Any, seed: int, n: int = 400) -> tuple[list[Any], list[Any]]:
    """Predictions of two versions, some asked for twice and some too old; labels for most, some corrected, some for nobody."""
    chance = random.Random(seed)
    predictions = [
        prediction(
            f"e{chance.randrange(n // 2)}",
            chance.choice("12"),
            round(chance.random(), 2),
            flights.ago(chance.uniform(0, 90)),
        )
        for _ in range(n)
    ]
    labels = [
        label(f"e{chance.randrange(n // 2 + 20)}", float(chance.random() < 0.3), flights.ago(chance.uniform(-5, 90)))
        for _ in range(n // 2)
    ]
    return predictions, labels


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_recomputation_whatever_the_order(flights: Any, prediction: Any, label: Any, seed: int) -> None:
    predictions, labels = rows(flights, prediction, label, seed)
    exporter = flights.exporter()
    chance = random.Random(seed)
    batches = [("predict", predictions[i : i + 50]) for i in range(0, len(predictions), 50)]
    batches += [("label", labels[i : i + 50]) for i in range(0, len(labels), 50)]
    batches += chance.sample(batches, 4)  # written twice
    chance.shuffle(batches)
    for number, (what, some) in enumerate(batches):
        getattr(flights, what)(some)
        if number % 3 == 0 and number > 6:
            agree(exporter, flights)
    agree(exporter, flights)
    agree(flights.exporter(), flights)  # a restart
    flights.compact()
    agree(exporter, flights)
    agree(flights.exporter(), flights)
    flights.predict(rows(flights, prediction, label, seed + 100)[0])
    agree(exporter, flights)


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_predictions_too_whatever_the_order(flights: Any, prediction: Any, label: Any, seed: int) -> None:
    predictions, labels = rows(flights, prediction, label, seed)
    chance = random.Random(seed)
    nameless = [
        prediction(None, chance.choice("12"), chance.random(), flights.ago(chance.uniform(0, 90))) for _ in range(50)
    ]
    shadows = [replace(row, version="3") for row in chance.sample(predictions, 100)]  # under the id of what they shadow
    predictions = [*predictions, *nameless, *shadows]
    ids = [row.id for row in chance.sample(predictions, 150)] + ["of nobody"]
    own = [
        label(None, float(chance.random() < 0.5), flights.ago(chance.uniform(-5, 90)), id_)
        for id_ in ids + ids[:20]  # some are corrected
    ]
    exporter = flights.exporter()
    flights.predict(predictions[:200])
    flights.label_as_before(labels[:80])
    agree(exporter, flights)
    batches = [("predict", predictions[i : i + 50]) for i in range(200, len(predictions), 50)]
    batches += [("label", labels[80:]), *(("label", own[i : i + 40]) for i in range(0, len(own), 40))]
    chance.shuffle(batches)
    for what, some in batches:
        getattr(flights, what)(some)
        agree(exporter, flights)
    agree(flights.exporter(), flights)
    flights.compact()
    agree(exporter, flights)
    agree(flights.exporter(), flights)
    flights.now += timedelta(minutes=10)
    agree(exporter, flights)


def test_each_answer_about_an_entity_can_have_a_truth_of_its_own(flights: Any, prediction: Any, label: Any) -> None:
    first, second, third = (
        prediction("e1", "1", score, flights.ago(3 - at)) for at, score in enumerate((0.9, 0.2, 0.6))
    )
    exporter = flights.exporter()

    def known() -> tuple[float, ...]:
        found = exported(exporter)
        kinds = ("perennial_quality_labels", "perennial_quality_labelled_share")
        return (*(found[kind]["flights", "1"] for kind in kinds), found["perennial_quality"]["flights", "1", "brier"])

    flights.predict([first, second, third])
    flights.label([label(None, 0.0, flights.now, first.id), label(None, 1.0, flights.now, second.id)])
    assert known() == pytest.approx((2, 2 / 3, (0.81 + 0.64) / 2))
    flights.label([label("e1", 1.0, flights.now)])  # of the newest, which has none of its own
    assert known() == pytest.approx((3, 1, (0.81 + 0.64 + 0.16) / 3))
    flights.label([label(None, 0.0, flights.ago(1), third.id)])
    assert known() == pytest.approx((3, 1, (0.81 + 0.64 + 0.36) / 3))


def test_each_row_is_read_once(flights: Any, prediction: Any, label: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Tail._read

    def noted(self: Tail, path: str) -> Any:
        read.append(path)
        return real(self, path)

    monkeypatch.setattr(Tail, "_read", noted)
    exporter = flights.exporter()
    for number in range(4):
        flights.predict([prediction(f"e{number}", "1", 0.5, flights.ago(1))])
        flights.label([label(f"e{number}", 1.0, flights.ago(1))])
        exporter.refresh()
        exporter.refresh()
    flights.compact()
    exporter.refresh()
    assert len(read) == len(set(read)) == 8


def test_predictions_leave_the_window_without_new_rows(flights: Any, prediction: Any, label: Any) -> None:
    exporter = flights.exporter()
    flights.predict([prediction(f"e{minute}", "1", minute / 60, flights.ago(minute)) for minute in range(0, 60, 10)])
    flights.label([label(f"e{minute}", float(minute % 20 == 0), flights.now) for minute in range(0, 60, 10)])
    agree(exporter, flights)
    flights.now += timedelta(minutes=25)
    assert exported(exporter)["perennial_quality_labels"] == {("flights", "1"): 4}
    agree(exporter, flights)
    flights.now += timedelta(minutes=60)
    assert figures(exporter) == set()


def test_a_restart_reads_only_the_window(
    flights: Any, prediction: Any, label: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flights.predict([prediction("e1", "1", 0.5, flights.now)])
    flights.label([label("e1", 1.0, flights.now)])
    flights.now += timedelta(hours=2)
    monkeypatch.setattr(Tail, "_read", lambda _, path: pytest.fail(f"read {path}"))
    assert exported(flights.exporter())["perennial_quality_labels"] == {}


def test_without_logs_or_labels_there_is_no_figure(flights: Any, prediction: Any, label: Any) -> None:
    exporter = flights.exporter()
    assert figures(exporter) == set()
    flights.predict([prediction("e1", "1", 0.5, flights.ago(1)), prediction("e2", "1", 0.25, flights.ago(1))])
    found = exported(exporter)
    assert found["perennial_quality"] == {}
    assert found["perennial_quality_labels"] == {("flights", "1"): 0}
    assert found["perennial_quality_labelled_share"] == {("flights", "1"): 0}
    flights.label([label("e1", 1.0, flights.ago(1))])
    assert exported(exporter)["perennial_quality"] == pytest.approx(
        {
            ("flights", "1", "brier"): 0.25,
            ("flights", "1", "log_loss"): 0.6931471805599453,
            ("flights", "1", "calibration_error"): 0.5,
        }
    ), "one class only: no AUC"
    flights.label([label("e2", 0.0, flights.ago(1))])
    assert exported(exporter)["perennial_quality"]["flights", "1", "roc_auc"] == 1.0


def test_rows_that_cannot_be_measured_are_passed_over(flights: Any, prediction: Any, label: Any) -> None:
    exporter = flights.exporter()
    good = [prediction("e1", "1", 0.9, flights.ago(1)), prediction("e2", "1", 0.1, flights.ago(1))]
    bad = [prediction(None, "1", 0.9, flights.ago(1)), prediction("e3", "1", None, flights.ago(1))]
    flights.predict([*good, *bad, prediction("e4", "1", float("nan"), flights.ago(1))])
    flights.label(
        [label("e1", 1.0, flights.ago(1)), label("e2", 0.0, flights.ago(1)), label("e3", 1.0, flights.ago(1))]
    )
    flights.label([label("e1", None, flights.now), label("e2", float("nan"), flights.now)])
    found = exported(exporter)
    assert found["perennial_quality_labels"] == {("flights", "1"): 2}
    assert found["perennial_quality_labelled_share"] == {("flights", "1"): 1.0}
    assert found["perennial_quality"]["flights", "1", "roc_auc"] == 1.0


def test_a_label_whose_own_time_is_of_another_year_counts(flights: Any, prediction: Any, label: Any) -> None:
    flights.predict([prediction("e1", "1", 0.9, flights.ago(1))])
    flights.label([label("e1", 1.0, flights.ago(60 * 24 * 365 * 10))])
    assert exported(flights.exporter())["perennial_quality_labels"] == {("flights", "1"): 1}


def test_a_log_that_cannot_be_read_keeps_the_last_figures_and_comes_back(
    flights: Any, prediction: Any, label: Any
) -> None:
    flights.predict([prediction("e1", "1", 0.9, flights.ago(1))])
    flights.label([label("e1", 1.0, flights.ago(1))])
    exporter = flights.exporter()
    before = exported(exporter)
    flights.predict([prediction("e2", "1", 0.8, flights.ago(1))])
    folder = flights.folder / "store" / "flights" / log_names.PREDICTIONS
    newest = max(folder.glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    hidden = newest.rename(newest.with_suffix(".hidden"))
    during = exported(exporter)
    assert during.pop("perennial_quality_logs_up") == {("flights",): 0}
    assert before.pop("perennial_quality_logs_up") == {("flights",): 1}
    assert during == before
    hidden.rename(newest)
    assert exported(exporter)["perennial_quality_labelled_share"] == {("flights", "1"): 0.5}


def test_a_regressor_has_its_own_measures(flights: Any, prediction: Any, label: Any) -> None:
    flights.spec("xgboost.regressor", "r2")
    flights.predict([prediction(f"e{x}", "1", x + 1.0, flights.ago(1)) for x in range(4)])
    flights.label([label(f"e{x}", float(x), flights.ago(1)) for x in range(4)])
    found = exported(flights.exporter())["perennial_quality"]
    assert {key[2]: value for key, value in found.items()} == pytest.approx({"r2": 0.2, "rmse": 1.0, "mae": 1.0})


def test_another_metric_in_the_spec_is_measured_without_a_restart(flights: Any, prediction: Any, label: Any) -> None:
    flights.predict([prediction("e1", "1", 0.9, flights.ago(1)), prediction("e2", "1", 0.2, flights.ago(1))])
    flights.label([label("e1", 1.0, flights.ago(1)), label("e2", 0.0, flights.ago(1))])
    exporter = flights.exporter()
    assert ("flights", "1", "roc_auc") in exported(exporter)["perennial_quality"]
    flights.spec(metric="average_precision")
    found = exported(exporter)["perennial_quality"]
    assert {key[2] for key in found} == {"average_precision", *ALWAYS["xgboost.classifier"]}


def test_it_serves_its_figures_as_a_process_and_ends_cleanly(
    flights: Any, prediction: Any, label: Any, closed_port: int, waiting: Any
) -> None:
    flights.predict([prediction("e1", "7", 0.9, flights.ago(1)), prediction("e2", "7", 0.2, flights.ago(1))])
    flights.label([label("e1", 1.0, flights.ago(1)), label("e2", 0.0, flights.ago(1))])
    environment = {**os.environ, "PERENNIAL_PORT": str(closed_port), "PERENNIAL_STORE": flights.store}
    environment["PERENNIAL_PIPELINES_DIR"] = str(flights.folder / "pipelines")
    with (flights.folder / "log").open("wb") as out:
        running = subprocess.Popen([sys.executable, "-m", "perennial_controller.quality"], env=environment, stderr=out)
    url = f"http://127.0.0.1:{closed_port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        waiting(ready, "the exporter")
        text = httpx.get(f"{url}/metrics").text
        running.terminate()
        assert running.wait(30) == 0
    finally:
        running.kill()
        running.wait(10)
    assert 'perennial_quality{metric="roc_auc",pipeline="flights",version="7"} 1.0' in text
    assert "\nprocess_resident_memory_bytes " in text
    assert "Traceback" not in (flights.folder / "log").read_text()


def test_without_a_store_it_says_what_it_needs() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PERENNIAL_")}
    command = [sys.executable, "-m", "perennial_controller.quality"]
    environment["PERENNIAL_PIPELINES_DIR"] = "/tmp"
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "PERENNIAL_STORE is not set" in ended.stderr) == (1, True)
