"""The share of values out of the range of the training data: exact over replicas, also when one of them restarts or is not scraped."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from perennial_spec import names

GROUPS = {
    group["name"]: group
    for group in yaml.safe_load((Path(__file__).parents[2] / "monitoring" / "rules" / "inputs.yml").read_text())[
        "groups"
    ]
}
SHARE = "perennial:out_of_range_share:5m"


def outside(world, per_step: float, *, restart: int | None = None, start: int = 0, **labels: str) -> None:
    """So many values of feature temp per step, counted from `start` on, and again from 0 at step `restart`."""
    values = [
        per_step * (step - (restart - 1 if restart is not None and step >= restart else start))
        for step in range(world.steps)
    ]
    by = {"job": "perennial-server", "instance": "s:1", "pipeline": "demo", "version": "1", "feature": "temp"}
    world.set(names.OUT_OF_RANGE, values, start, **{**by, **labels})


@pytest.fixture
def demo(world):
    return world.server().pipeline().champion()


def shares(world, step: int, record: str = SHARE) -> dict[str, float]:
    """By version and feature."""
    return {f"{labels['version']} {labels['feature']}": value for labels, value in world.value(record, step)}


def test_the_windows_are_alike() -> None:
    whole = (yaml.safe_dump(GROUPS[f"perennial-inputs-{window}"]["rules"]) for window in ("5m", "1h", "1d"))
    forms = [text.replace(window, "W") for text, window in zip(whole, ("5m", "1h", "1d"), strict=True)]
    assert forms[0] == forms[1] == forms[2]


def test_it_is_the_share_of_the_rows_of_all_replicas(demo, deciles) -> None:
    demo.server("s:2").champion(instance="s:2")
    demo.traffic(deciles, rows=100).traffic(deciles, rows=300, instance="s:2")
    outside(demo, 10)
    outside(demo, 30, instance="s:2")
    outside(demo, 0, feature="wind")
    outside(demo, 0, feature="wind", instance="s:2")
    assert shares(demo, 60) == {"1 temp": pytest.approx(0.1), "1 wind": 0}
    assert shares(demo, 60, "perennial:out_of_range_share:1h") == {"1 temp": pytest.approx(0.1), "1 wind": 0}


def test_versions_are_apart_and_one_without_rows_has_no_share(demo, deciles) -> None:
    demo.traffic(deciles, rows=100).traffic(deciles, rows=100, version="2").traffic(deciles, rows=0, version="3")
    outside(demo, 5)
    outside(demo, 50, version="2")
    outside(demo, 0, version="3")
    assert shares(demo, 60) == {"1 temp": pytest.approx(0.05), "2 temp": pytest.approx(0.5)}


def test_a_server_that_restarts_counts_from_its_restart_on(demo, deciles) -> None:
    demo.traffic(deciles, rows=100, before=1e6, restart=55)
    outside(demo, 20, restart=55)
    assert shares(demo, 66) == {"1 temp": pytest.approx(0.2)}


def test_a_prometheus_that_was_down_has_no_share_until_it_has_a_past_and_the_right_one_then(demo, deciles) -> None:
    demo.traffic(deciles, rows=100, before=1e6)
    outside(demo, 20)
    demo.unscraped("s:1", 0, 40)
    assert shares(demo, 45) == {}
    assert shares(demo, 65) == {"1 temp": pytest.approx(0.2)}


def test_a_model_of_an_older_release_whose_ranges_are_not_known_has_none(demo, deciles) -> None:
    demo.traffic(deciles, rows=100)
    assert shares(demo, 60) == {}
