"""The specs as metrics: what the static alert rules compare against."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from perennial_controller.freshness import DataClock
from perennial_controller.specs import Specs

LIMITS = "{on: [drift, freshness], cooldown: 1h}"


async def test_every_threshold_of_a_pipeline_is_a_gauge(world: Any) -> None:
    world.pipeline("flights", LIMITS, psi=0.35)
    async with world.controller() as client:
        metrics = await client.metrics()
    of_the_loop = (
        "perennial_runs_total",
        "perennial_run_f",
        "perennial_retrainings_since",
        "perennial_budget",
        "perennial_controller",
        "perennial_rollbacks",
        "perennial_rollout",
        "perennial_breaker",
    )
    mine = {name: value for name, value in metrics.items() if 'pipeline="flights"' in name}
    ours = {name: value for name, value in mine.items() if "limit" in name or not name.startswith(of_the_loop)}
    assert ours == {
        'perennial_drift_psi_threshold{pipeline="flights"}': 0.35,
        'perennial_drift_min_rows{pipeline="flights"}': 300,
        'perennial_drift_window{pipeline="flights",window="5m"}': 1,
        'perennial_drift_ignored{feature="month",pipeline="flights"}': 1,
        'perennial_attribution_shift_limit{pipeline="flights"}': 0.12,
        'perennial_attribution_min_rows{pipeline="flights"}': 200,
        'perennial_quality_min{metric="roc_auc",pipeline="flights"}': 0.68,
        'perennial_quality_min_labels{pipeline="flights"}': 200,
        'perennial_quality_min_labelled_share{pipeline="flights"}': 0.5,
        'perennial_label_arrives_after_seconds{pipeline="flights"}': 0,
        'perennial_retrain_on{pipeline="flights",trigger="drift"}': 1,
        'perennial_retrain_on{pipeline="flights",trigger="freshness"}': 1,
        'perennial_data_freshness_limit_seconds{pipeline="flights"}': 36 * 3600,
        'perennial_error_rate_limit_ratio{pipeline="flights"}': 0.01,
        'perennial_latency_p99_limit_seconds{pipeline="flights"}': 0.5,
        'perennial_service_min_requests{pipeline="flights"}': 100,
        'perennial_model_review_after_seconds{pipeline="flights"}': 90 * 86400,
        'perennial_model_retire_after_seconds{pipeline="flights"}': 730 * 86400,
        'perennial_run_limit_seconds{pipeline="flights"}': (4 + 2 * 2 + 1 + 2) * 3600,
        'perennial_run_failures_limit{pipeline="flights"}': 2,
        'perennial_retrainings_without_promotion_limit{pipeline="flights"}': 5,
    }


async def test_the_gates_of_slices_are_their_limits_and_the_strictest_counts(world: Any) -> None:
    world.pipeline("flights")
    file = world.pipelines / "flights" / "pipeline.yaml"
    gates = """gates: [{metric: roc_auc, min: 0.6}, {slice: origin, metric: roc_auc, min: 0.5, min_rows: 300},
      {slice: origin, metric: roc_auc, min: 0.55}, {slice: origin, metric: brier, max: 0.2, min_rows: 50}]"""
    file.write_text(file.read_text().replace("gates: [{metric: roc_auc, min: 0.6}]", gates))
    async with world.controller() as client:
        metrics = await client.metrics()
    assert {
        name: value for name, value in metrics.items() if "quality_slice" in name and 'pipeline="flights"' in name
    } == {
        'perennial_quality_slice_min{metric="roc_auc",pipeline="flights",slice="origin"}': 0.55,
        'perennial_quality_slice_max{metric="brier",pipeline="flights",slice="origin"}': 0.2,
        'perennial_quality_slice_min_labels{metric="roc_auc",pipeline="flights",slice="origin"}': 300,
        'perennial_quality_slice_min_labels{metric="brier",pipeline="flights",slice="origin"}': 50,
    }


async def test_a_changed_threshold_is_exported_without_a_restart(world: Any) -> None:
    async with world.controller() as client:
        world.pipeline("flights", LIMITS, psi=0.5)
        world.pipeline("trains", LIMITS, psi=0.1)

        async def changed() -> bool:
            metrics = await client.metrics()
            wanted = {"flights": 0.5, "trains": 0.1}
            return all(
                metrics.get(f'perennial_drift_psi_threshold{{pipeline="{name}"}}') == psi
                for name, psi in wanted.items()
            )

        await client.until(changed)


async def test_a_broken_pipeline_keeps_its_last_good_thresholds_and_is_counted(world: Any) -> None:
    world.pipeline("trains")
    file = world.pipelines / "flights" / "pipeline.yaml"
    good = file.read_text()
    async with world.controller() as client:
        file.write_text(good.replace("psi: 0.2", "psi: minus"))

        async def broken() -> dict[str, float] | None:
            metrics = await client.metrics()
            return metrics if 'perennial_pipeline_broken{pipeline="flights"}' in metrics else None

        metrics = await client.until(broken)
        assert metrics['perennial_drift_psi_threshold{pipeline="flights"}'] == 0.2
        assert metrics['perennial_drift_psi_threshold{pipeline="trains"}'] == 0.2
        assert 'perennial_pipeline_broken{pipeline="trains"}' not in metrics
        file.write_text(good.replace("psi: 0.2", "psi: 0.25"))

        async def mended() -> bool:
            metrics = await client.metrics()
            mark = 'perennial_pipeline_broken{pipeline="flights"}' not in metrics
            return mark and metrics['perennial_drift_psi_threshold{pipeline="flights"}'] == 0.25

        await client.until(mended)


def test_a_pipeline_that_is_removed_is_gone(world: Any) -> None:
    import shutil

    specs = Specs(world.pipelines)
    assert specs.refresh()
    assert not specs.refresh(), "nothing has changed"
    assert specs.get("flights") is not None
    shutil.rmtree(world.pipelines / "flights")
    assert specs.refresh()
    assert (specs.get("flights"), specs.broken()) == (None, {})


def test_a_missing_feature_file_breaks_the_pipeline_and_coming_back_mends_it(world: Any) -> None:
    specs = Specs(world.pipelines)
    specs.refresh()
    features = world.pipelines / "flights" / "features.py"
    away = features.rename(features.with_suffix(".away"))
    specs.refresh()
    assert "features.py" in str(specs.broken()["flights"])
    assert specs.get("flights") is not None, "its last good spec holds"
    away.rename(features)
    specs.refresh()
    assert specs.broken() == {}


def test_the_newest_row_is_read_from_the_log_and_followed(world: Any) -> None:
    specs = Specs(world.pipelines)
    specs.refresh()
    clock = DataClock(str(world.folder / "store"))

    def newest() -> float | None:
        clock.refresh(specs.all())
        (family,) = clock.collect()
        return family.samples[0].value if family.samples else None

    def land(*times: datetime) -> None:
        uri = str(world.folder / "store" / "flights" / "data")
        write_deltalake(
            uri, pa.table({"id": ["x"] * len(times), "at": pa.array(times, pa.timestamp("us", "UTC"))}), mode="append"
        )

    march, may, april = (datetime(2026, month, 1, 12, tzinfo=UTC) for month in (3, 5, 4))
    assert newest() is None
    land(march)
    assert newest() == march.timestamp()
    land(may, march)
    assert newest() == may.timestamp()
    land(april)
    assert newest() == may.timestamp()
