"""A bundle carries rows of the holdout with XGBoost's answers, and holds another reading of its trees to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial_features.bundle import Bundle
from perennial_features.holdout import MAX_ROWS, Holdout
from perennial_spec.errors import ModelError

World = Any


@pytest.fixture
def held(world: World) -> Holdout:
    return Holdout.of(world.encoded.matrix, world.bundle.booster.inplace_predict(world.encoded.matrix))


@pytest.fixture
def saved(world: World, held: Holdout, tmp_path: Path) -> Path:
    replace(world.bundle, holdout=held).save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_rows_are_evenly_spread_and_at_most_two_thousand(world: World, held: Holdout) -> None:
    assert held.matrix.shape == (MAX_ROWS, len(world.schema.features))
    np.testing.assert_array_equal(held.matrix[[0, -1]], world.encoded.matrix[[0, -1]])
    few = Holdout.of(world.encoded.matrix[:7], np.zeros(7))
    assert len(few.matrix) == len(few.predictions) == 7


def test_a_bundle_gives_back_the_holdout_bit_for_bit_and_xgboost_passes(held: Holdout, saved: Path) -> None:
    loaded = Bundle.load(saved)
    assert loaded.holdout is not None
    np.testing.assert_array_equal(loaded.holdout.matrix, held.matrix)
    np.testing.assert_array_equal(loaded.holdout.predictions, held.predictions)
    loaded.holdout.verify(loaded.booster)
    assert "holdout.npz" in json.loads((saved / "bundle.json").read_text())["digests"]


def test_a_bundle_of_an_older_release_has_none_and_loads(world: World, tmp_path: Path) -> None:
    world.bundle.save(tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "holdout.npz").exists()
    assert Bundle.load(tmp_path / "bundle").holdout is None


class Trees:
    """Answers of another reading of the trees: XGBoost's, bent."""

    def __init__(self, world: World, bend: Any) -> None:
        self.booster, self.bend = world.bundle.booster, bend

    def inplace_predict(self, data: Any) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self.bend(self.booster.inplace_predict(data), data)
        return found


def on_one_row(answers: Any, data: Any) -> Any:
    answers[17] += 0.25
    return answers


@pytest.mark.parametrize(
    ("bend", "what"),
    [
        (on_one_row, "other answers to 1 of 2,000 rows, by up to 0.25"),
        (lambda answers, data: answers * (1 + 1e-4), "other answers to 2,000 of 2,000 rows"),
        (lambda answers, data: answers * np.nan, "other answers to 2,000 of 2,000 rows"),
        (lambda answers, data: answers[:, None], r"answers of shape \(2000, 1\), not \(2000,\)"),
    ],
)
def test_trees_that_were_misread_are_told(world: World, held: Holdout, bend: Any, what: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        held.verify(Trees(world, bend))
    assert "XGBoost itself" in caught.value.next


def test_float_rounding_passes(world: World, held: Holdout) -> None:
    held.verify(Trees(world, lambda answers, data: np.nextafter(answers, np.float32(1))))


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_float_precision_is_in_the_units_of_the_label(world: World, held: Holdout, unit: float) -> None:
    scaled = Holdout(held.matrix, (held.predictions - np.float32(0.5)) * np.float32(unit))

    def answers(error: float) -> Trees:
        return Trees(world, lambda found, data: (found - np.float32(0.5) + np.float32(error)) * np.float32(unit))

    scaled.verify(answers(2e-7))  # a few answers are nearly 0: there it is more than a share of them
    with pytest.raises(ModelError, match="other answers"):
        scaled.verify(answers(1e-4))


def test_several_answers_a_row_are_held_to_as_one(world: World, held: Holdout) -> None:
    both = replace(held, predictions=np.stack([1 - held.predictions, held.predictions], axis=1))
    both.verify(Trees(world, lambda answers, data: np.stack([1 - answers, answers], axis=1)))
    with pytest.raises(ModelError, match="other answers"):
        both.verify(Trees(world, lambda answers, data: np.stack([answers, 1 - answers], axis=1)))


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"matrix": np.zeros((3, 5), np.float32)}, "cannot be read"),
        ({"matrix": np.zeros((3, 5)), "predictions": np.zeros(3)}, "has a float64 matrix"),
        ({"matrix": np.zeros((3, 4), np.float32), "predictions": np.zeros(3)}, r"shape \(3, 4\), not of 5 features"),
        ({"matrix": np.zeros((3, 5), np.float32), "predictions": np.zeros(2)}, "2 answers to 3 rows"),
        ({"matrix": np.array([[None]]), "predictions": np.zeros(1)}, "cannot be read"),
    ],
)
def test_a_file_that_is_no_holdout_is_told(tmp_path: Path, arrays: dict[str, Any], what: str) -> None:
    np.savez(tmp_path / "holdout.npz", **arrays)
    with pytest.raises(ModelError, match=what):
        Holdout.load(tmp_path / "holdout.npz", 5)


def test_a_holdout_that_was_changed_stops_the_load(saved: Path) -> None:
    (saved / "holdout.npz").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holdout\.npz has changed since training"):
        Bundle.load(saved)
    (saved / "holdout.npz").unlink()
    with pytest.raises(ModelError, match=r"has lost its holdout\.npz"):
        Bundle.load(saved)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 cut off", b"text"):
        (tmp_path / "holdout.npz").write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read"):
            Holdout.load(tmp_path / "holdout.npz", 5)
