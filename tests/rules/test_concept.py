"""Attribution shift, and which kind of drift low quality comes with."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from perennial_spec import names

RULES = Path(__file__).parents[2] / "monitoring" / "rules"
BASE = "https://github.com/perennial-ml/perennial/blob/main/monitoring/runbooks"
TRAINED = {"temp": 0.5, "wind": 0.3, "month": 0.2}
SHIFTED = {"temp": 0.2, "wind": 0.6, "month": 0.2}
"""0.3 of the attribution has gone from temp to wind."""
SHIFT = {
    "alertname": "PerennialAttributionShift",
    "pipeline": "demo",
    "version": "1",
    "window": "5m",
    "severity": "warning",
    "action": "none",
}


@pytest.fixture
def demo(world, deciles):
    """One server, one pipeline with a window of 5 minutes, one champion whose inputs are those of training; steps of 15 seconds."""
    return world.server().pipeline().champion().traffic(deciles)


def ever_firing(world, steps) -> bool:
    return any(world.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in steps}).values())


# -- the figures --


def test_shares_shift_and_noise_are_what_one_computes_by_hand_over_replicas(demo) -> None:
    demo.server("s:2").champion(instance="s:2")
    demo.attributions({"temp": 0.5, "wind": 0.3, "month": 0.2}, TRAINED, rows=300)
    demo.attributions({"temp": 0.2, "wind": 0.7, "month": 0.1}, TRAINED, rows=100, instance="s:2")
    asked = {name: (f"perennial:attribution_{name}:5m", 60) for name in ("rows", "share", "shift", "noise")}
    found = demo.values(asked)
    [(labels, rows)] = found["rows"]
    assert (labels, rows) == ({"pipeline": "demo", "version": "1", "window": "5m"}, 5 * 400)
    live = {"temp": 0.75 * 0.5 + 0.25 * 0.2, "wind": 0.75 * 0.3 + 0.25 * 0.7, "month": 0.75 * 0.2 + 0.25 * 0.1}
    assert {labels["feature"]: value for labels, value in found["share"]} == pytest.approx(live)
    [(labels, shift)] = found["shift"]
    assert shift == pytest.approx(sum(abs(live[name] - share) for name, share in TRAINED.items()) / 2)
    assert labels == {"pipeline": "demo", "version": "1", "window": "5m"}
    assert [value for _, value in found["noise"]] == pytest.approx([0.7 * math.sqrt(1 / 2000 + 1 / 2000)])


def test_features_that_drift_ignores_are_left_out_on_both_sides(demo) -> None:
    demo.set(names.DRIFT_IGNORED, 1, pipeline="demo", feature="month", job="controller")
    demo.attributions({"temp": 0.25, "wind": 0.15, "month": 0.6}, TRAINED)
    found = demo.values({name: (f"perennial:attribution_{name}:5m", 60) for name in ("shift", "noise", "share")})
    assert found["shift"][0][1] == pytest.approx(0, abs=1e-9)
    assert found["noise"][0][1] == pytest.approx(0.7 * math.sqrt(1 / 1500 + 1 / 2000) / 0.8)
    assert len(found["share"]) == 3, "they are still measured"


def test_the_windows_are_alike() -> None:
    groups = {group["name"]: group for group in yaml.safe_load((RULES / "concept.yml").read_text())["groups"]}
    texts = [yaml.safe_dump(groups[f"perennial-attribution-{w}"]["rules"]).replace(w, "W") for w in ("5m", "1h", "1d")]
    assert texts[0] == texts[1] == texts[2]


# -- firing --


@pytest.mark.parametrize("window", ["5m", "1h", "1d"])
def test_a_shift_fires_over_the_window_of_the_spec(world, deciles, window: str) -> None:
    world.server().pipeline(window=window).champion().traffic(deciles).attributions(SHIFTED, TRAINED)
    assert world.firing() == [{**SHIFT, "window": window}]


def test_it_says_how_much_and_what_has_changed(demo) -> None:
    demo.attributions(SHIFTED, TRAINED)
    demo.check_alert(
        "PerennialAttributionShift",
        60,
        {key: value for key, value in SHIFT.items() if key != "alertname"},
        {
            "summary": "demo: what moves the predictions has shifted by 0.30 > 0.15, and no single input has drifted",
            "description": "Version 1 of demo rests on other features than on its reference data: the part 0.30 of the attribution has "
            "gone to others over 5m, on 1500 explained rows. Most changed: month by +0.00; temp by -0.30; wind by +0.30; "
            "the inputs together may not mean what they did.",
            "runbook_url": f"{BASE}/PerennialAttributionShift.md",
        },
    )


# -- silent --


def test_a_shift_below_the_limit_is_silent(world, deciles) -> None:
    world.server().pipeline(shift=0.35).champion().traffic(deciles).attributions(SHIFTED, TRAINED)
    assert world.firing() == []


def test_a_shift_within_the_noise_is_silent(demo) -> None:
    demo.attributions(SHIFTED, TRAINED, rows=60, noise=6)
    found = demo.values({"shift": ("perennial:attribution_shift", 60), "fires": ("ALERTS", 60)})
    assert found["shift"][0][1] == pytest.approx(0.3)
    assert found["fires"] == []


def test_too_few_explained_rows_are_silent(demo) -> None:
    demo.attributions(SHIFTED, TRAINED, rows=39, noise=0.1)  # 195 in 5 minutes
    found = demo.values({"rows": ("perennial:attribution_rows:5m", 60), "fires": ("ALERTS", 60)})
    assert found["rows"][0][1] == 195
    assert found["fires"] == []


def test_where_a_single_input_has_drifted_that_is_the_alert(demo, moved) -> None:
    demo.traffic(moved, feature="wind").attributions(SHIFTED, TRAINED)
    assert [labels["alertname"] for labels in demo.firing()] == ["PerennialFeatureDrift"]


def test_a_version_that_is_not_champion_is_silent(demo) -> None:
    demo.attributions(TRAINED, TRAINED).attributions(SHIFTED, TRAINED, version="2")
    assert demo.firing() == []


def test_a_model_that_is_not_explained_is_silent(demo) -> None:
    assert demo.firing() == []
    assert demo.value("perennial:attribution_shift") == []


def test_a_server_that_explains_nothing_is_silent(demo) -> None:
    demo.attributions(SHIFTED, TRAINED, rows=0)
    assert demo.firing() == []


def test_without_the_controllers_limit_it_is_silent(demo) -> None:
    demo.attributions(SHIFTED, TRAINED)
    demo.series = {key: values for key, values in demo.series.items() if names.ATTRIBUTION_SHIFT_LIMIT not in key}
    assert demo.firing() == []


# -- resolving and restarts --


def test_it_resolves_when_the_attribution_is_back(demo) -> None:
    demo.attributions(TRAINED, SHIFTED, since=40)
    for key in [key for key in demo.series if key.startswith(names.ATTRIBUTION_REFERENCE + "{")]:
        feature = key.split('feature="')[1].split('"')[0]
        demo.series[key] = [TRAINED[feature]] * demo.steps
    found = demo.values({"then": ('ALERTS{alertstate="firing"}', 40), "now": ('ALERTS{alertstate="firing"}', 70)})
    assert len(found["then"]) == 1
    assert found["now"] == []


def test_it_resolves_when_a_champion_that_was_trained_on_it_takes_over(demo, deciles) -> None:
    demo.champion("1", end=40).champion("2", start=40).traffic(deciles, version="2", start=20)
    demo.attributions(SHIFTED, TRAINED).attributions(SHIFTED, SHIFTED, version="2", start=20)
    found = demo.values({str(step): ('ALERTS{alertstate="firing"}', step) for step in (39, 42, 80)})
    assert (len(found["39"]), found["42"], found["80"]) == (1, [], [])


@pytest.mark.parametrize("window", ["5m", "1h"])
def test_a_restarted_server_causes_no_alert(world, deciles, window: str) -> None:
    world.server().pipeline(window=window).champion()
    world.traffic(deciles, restart=40, before=100_000).attributions(TRAINED, TRAINED, restart=40, before=50_000)
    world.unscraped("s:1", 38, 40)
    assert not ever_firing(world, range(36, 81, 4))


def test_a_shift_is_found_again_after_a_restart(demo) -> None:
    demo.attributions(SHIFTED, TRAINED, restart=41)
    assert len(demo.firing(40)) == 1
    assert len(demo.firing(80)) == 1


def test_a_past_that_prometheus_has_not_seen_is_not_counted(demo) -> None:
    # Prometheus starts at step 0, and finds a server that has explained a million rows of another world.
    demo.attributions(TRAINED, TRAINED)
    for key in demo.series:
        if key.startswith(names.ATTRIBUTION_ABS):
            feature = key.split('feature="')[1].split('"')[0]
            demo.series[key] = [value + 1_000_000 * SHIFTED[feature] for value in demo.series[key]]
        elif key.startswith(names.ATTRIBUTION_ROWS):
            demo.series[key] = [value + 1_000_000 for value in demo.series[key]]
    found = demo.values({"fires": ('ALERTS{alertstate="firing"}', 40), "rows": ("perennial:attribution_rows:5m", 40)})
    assert found["fires"] == []
    assert [value for _, value in found["rows"]] == [1500]


def test_a_series_that_is_missing_for_a_scrape_does_not_end_the_alert(demo) -> None:
    demo.attributions(SHIFTED, TRAINED)
    assert demo.firing(60) == [SHIFT]
    demo.unscraped("s:1", 60, 61)
    assert demo.firing(61) == [SHIFT]


# -- the cause of low quality --


@pytest.fixture
def low(world):
    """A champion whose roc_auc is too low on enough labels."""
    world.server().pipeline().champion()
    world.set(names.QUALITY_MIN, 0.68, pipeline="demo", metric="roc_auc", job="controller")
    world.set(names.QUALITY_MIN_LABELS, 500, pipeline="demo", job="controller")
    by = {"pipeline": "demo", "version": "1", "job": "quality", "instance": "q:1"}
    return world.set(names.QUALITY, 0.61, **by, metric="roc_auc").set(names.QUALITY_LABELS, 800, **by)


QUALITY = {"pipeline": "demo", "version": "1", "metric": "roc_auc", "severity": "warning", "action": "retrain"}
LOW = "demo: live roc_auc 0.610 is beyond its limit 0.680"
FIGURES = "Version 1 of demo has roc_auc 0.610 on 800 labels; action: retrain."


@pytest.mark.parametrize(
    ("rows", "drifts", "summary", "description"),
    [
        (
            100,
            False,
            f"{LOW}; concept drift: no input has moved",
            f"{FIGURES} No input that is judged has drifted within the last day: the relation between inputs and labels has changed.",
        ),
        (
            100,
            True,
            f"{LOW}; data drift: inputs have moved",
            f"{FIGURES} Inputs have drifted within the last day, worst by PSI: temp 1.24; retraining on newer data may be enough.",
        ),
        (10, False, LOW, f"{FIGURES} Too few rows within the last day to say whether inputs have drifted."),
    ],
    ids=["concept", "data", "unknown"],
)
def test_low_quality_says_what_it_comes_with(low, moved, deciles, rows, drifts, summary, description) -> None:
    low.traffic(moved if drifts else deciles, rows=rows)
    annotations = {"summary": summary, "description": description, "runbook_url": f"{BASE}/PerennialQualityLow.md"}
    low.check_alert("PerennialQualityLow", 60, QUALITY, annotations)


@pytest.mark.parametrize(("drifts", "cause"), [(False, "concept_drift"), (True, "data_drift")])
def test_the_cause_is_recorded_while_quality_is_low(low, moved, deciles, drifts: bool, cause: str) -> None:
    low.traffic(moved if drifts else deciles)
    assert low.value("perennial:quality_low_cause", 60) == [({"pipeline": "demo", "version": "1", "cause": cause}, 1)]


def test_without_low_quality_there_is_no_cause(demo) -> None:
    assert demo.value("perennial:quality_low_cause") == []


def test_a_cause_that_changes_leaves_the_alert_the_same(low, moved, deciles) -> None:
    low.traffic(deciles)
    for key in [key for key in low.series if "observations" in key]:
        name = key.split('bin="')[1].split('"')[0]
        values = low.series[key]
        for step in range(40, 81):
            values[step] = values[39] + (step - 39) * 100 * moved[name]
    fires = 'ALERTS{alertname="PerennialQualityLow", alertstate="firing"}'
    asked = {str(step): (fires, step) for step in range(20, 81, 10)}
    found = low.values(
        {**asked, "before": ("perennial:quality_low_cause", 39), "after": ("perennial:quality_low_cause", 70)}
    )
    assert [labels["cause"] for labels, _ in found["before"] + found["after"]] == ["concept_drift", "data_drift"]
    assert {str(labels) for step in asked for labels, _ in found[step]} == {str(found["20"][0][0])}


def test_a_drift_that_is_over_is_still_the_cause_of_what_labels_say_late(low, moved, deciles) -> None:
    low.traffic(moved)
    for key in [key for key in low.series if "observations" in key]:
        name = key.split('bin="')[1].split('"')[0]
        values = low.series[key]
        for step in range(40, 81):
            values[step] = values[39] + (step - 39) * 100 * deciles[name]
    found = low.values({"over": ("perennial:feature_psi:over", 75), "cause": ("perennial:quality_low_cause", 75)})
    assert found["over"] == []
    assert [labels["cause"] for labels, _ in found["cause"]] == ["data_drift"]
