"""What is kept on disk, what is refused, and what happens to damaged files: an error that says what, never a crash."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial_native.flat import FAST, TREES
from perennial_native.forest import Flat, Forest, Unsupported, agrees, flatten


@pytest.fixture(scope="module")
def booster(teacher: Any) -> Any:
    return teacher.train("any", max_depth=5, rounds=10)


@pytest.fixture
def model(booster: Any) -> Any:
    return json.loads(booster.save_raw("json"))


@pytest.fixture(scope="module")
def flat(booster: Any, flat_of: Any) -> Any:
    return flat_of(booster)


def test_a_saved_forest_is_mapped_and_answers_the_same(flat: Any, rows_of: Any, tmp_path) -> None:
    flat.save(tmp_path / "forest")
    loaded = Flat.load(tmp_path / "forest")
    assert all(isinstance(array, np.memmap) for array in loaded.arrays.values() if array.size)
    np.testing.assert_array_equal(Forest(loaded).predict(rows_of(1)), Forest(flat).predict(rows_of(1)))


def test_saving_again_leaves_a_mapped_forest_as_it_is(
    teacher: Any, flat: Any, flat_of: Any, rows_of: Any, tmp_path
) -> None:
    flat.save(tmp_path)
    mapped = Forest(Flat.load(tmp_path))
    before = mapped.predict(rows_of(1))
    flat_of(teacher.train("positive", rounds=1, max_depth=1)).save(tmp_path)
    np.testing.assert_array_equal(mapped.predict(rows_of(1)), before)
    assert Forest(Flat.load(tmp_path)).predict(rows_of(1))[0] != before[0]


def test_a_forest_without_trees_or_sets_survives_the_disk(teacher: Any, flat_of: Any, rows_of: Any, tmp_path) -> None:
    flat_of(teacher.train("many", rounds=0)).save(tmp_path)
    assert Forest(Flat.load(tmp_path)).predict(rows_of(1)).shape == (400, 3)


def test_the_process_that_answers_has_not_imported_xgboost(flat: Any, tmp_path) -> None:
    flat.save(tmp_path)
    code = (
        "import sys, numpy\nfrom perennial_native.forest import Flat, Forest\n"
        "Forest(Flat.load(sys.argv[1])).predict(numpy.zeros((3, 6), dtype='f4'))\n"
        "assert not {'xgboost', 'scipy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


@pytest.mark.parametrize("name", [*TREES, *FAST, "forest.json"])
def test_a_lost_or_cut_file_is_named(flat: Any, tmp_path, name) -> None:
    flat.save(tmp_path)
    file = tmp_path / (name if "." in name else f"{name}.npy")
    whole = file.read_bytes()
    for kept in (0, 5, len(whole) - 3):
        file.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="holds no flattened forest"):
            Flat.load(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=file.name):
        Flat.load(tmp_path)


def test_another_format_says_what_to_do(flat: Any, tmp_path) -> None:
    flat.save(tmp_path)
    (tmp_path / "forest.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="its format is 0, this release reads 1; flatten the model again"):
        Flat.load(tmp_path)


def changed(flat: Flat, name: str, value: Any) -> Flat:
    return replace(flat, arrays={**flat.arrays, name: value})


def edited(flat: Flat, name: str, at: Any, value: Any) -> Flat:
    array = np.array(flat.arrays[name])
    array.reshape(-1)[at] = value
    return changed(flat, name, array)


@pytest.mark.parametrize("name", [*TREES, *FAST])
def test_arrays_of_another_kind_are_refused(flat: Any, name) -> None:
    array = flat.arrays[name]
    with np.errstate(over="ignore"):
        half = array.astype("float16")
    for wrong in (half, array.astype("complex64"), array.astype("int16"), array.astype(array.dtype.newbyteorder())):
        if wrong.dtype != array.dtype:
            with pytest.raises(ValueError, match=f"{name} has items of type"):
                Forest(changed(flat, name, wrong))
    if len(array) > 1:
        with pytest.raises(ValueError, match="not C-contiguous"):
            Forest(changed(flat, name, np.repeat(array, 2, axis=0)[::2]))
    with pytest.raises(TypeError):
        Forest(changed(flat, name, None))
    with pytest.raises(ValueError, match=f"no array {name}"):
        Forest(replace(flat, arrays={other: array for other, array in flat.arrays.items() if other != name}))


@pytest.mark.parametrize(
    ("name", "at", "value", "text"),
    [
        ("roots", 0, -1, "root"),
        ("roots", 3, 2**31 - 1, "root"),
        ("groups", 0, 1, "output"),
        ("groups", 0, -1, "output"),
        ("feature", 0, 6, "feature"),
        ("feature", 0, -1, "feature"),
        ("left", 0, 0, "child"),
        ("left", 2, 1, "child"),
        ("left", 0, 2**31 - 1, "child"),
        ("left", 0, -(2**31), "leaf"),
        ("threshold", "numeric", np.nan, "threshold"),
        ("set", "category", -1, "set"),
        ("set", "category", 10**6, "set"),
        ("set_start", 0, 1, "sets"),
        ("set_start", 1, -1, "set"),
        ("set_start", -1, 10**9, "sets"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(flat: Any, name, at, value, text) -> None:
    inner, by_category = flat.arrays["left"] >= 0, flat.arrays["set"] >= 0
    at = {"numeric": np.argmax(inner & ~by_category), "category": np.argmax(by_category)}.get(at, at)
    with pytest.raises(ValueError, match=f"damaged: .*{text}.*; flatten the model again"):
        Forest(edited(flat, name, at, value))


@pytest.mark.parametrize(
    "change",
    [{"features": 0}, {"features": -1}, {"features": 3}, {"outputs": 2}, {"transform": "softprob"}, {"transform": "x"}],
)
def test_figures_that_do_not_fit_the_arrays_are_refused(flat: Any, change) -> None:
    if change == {"transform": "softprob"}:
        change = {"transform": "softmax", "outputs": 3}
    with pytest.raises(ValueError, match="flattened forest"):
        Forest(replace(flat, **change))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_crashes(flat: Any, rows_of: Any, data) -> None:
    """Either it is refused, or it answers something."""
    arrays = {name: np.array(array) for name, array in flat.arrays.items()}
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(sorted(arrays)))
        raw = arrays[name].reshape(-1).view(np.uint8)
        if len(raw):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
        if data.draw(st.booleans()):
            arrays[name] = np.ascontiguousarray(arrays[name][: data.draw(st.integers(0, len(arrays[name])))])
    try:
        forest = Forest(replace(flat, arrays=arrays))
    except ValueError:
        return
    for count in (1, 50, 300):
        assert forest.predict(rows_of(1)[:count]).shape == (count,)


def test_a_linear_booster_is_not_supported(teacher: Any, flat_of: Any) -> None:
    with pytest.raises(Unsupported, match=r"the booster is 'gblinear'; only forests \(gbtree, dart\)"):
        flat_of(teacher.train("any", numeric=True, booster="gblinear"))


def tree(model: Any) -> Any:
    return model["learner"]["gradient_booster"]["model"]["trees"][0]


def set_in(name: str, at: int, value: Any) -> Any:
    return lambda model: tree(model)[name].__setitem__(at, value)


def about(name: str, value: Any) -> Any:
    return lambda model: model["learner"]["learner_model_param"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (about("num_feature", "65536"), "65536 features; from 1 to 65535"),
        (about("num_feature", "0"), "0 features"),
        (about("num_feature", "2"), "a tree splits by feature [345] of 2"),
        (about("base_score", "[1,2,3]"), "base_score has 3 values for 1 outputs"),
        (about("base_score", "half"), "not a JSON model as XGBoost writes it: ValueError"),
        (lambda model: model["learner"]["objective"].__setitem__("name", "reg:new"), "objective 'reg:new'"),
        (
            lambda model: model["learner"].pop("objective"),
            "not a JSON model as XGBoost writes it: KeyError: 'objective'",
        ),
        (lambda model: model.clear(), "not a JSON model as XGBoost writes it: KeyError: 'learner'"),
        (lambda model: tree(model).__setitem__("left_children", None), "not a JSON model|a tree has"),
        (lambda model: tree(model)["default_left"].pop(), "default_left for"),
        (set_in("left_children", 0, 0), "right child does not follow|two parents"),
        (set_in("left_children", 0, 2), "right child does not follow"),
        (set_in("right_children", 0, 10**9), "child is 1000000000 in a tree of"),
        (lambda model: tree(model)["tree_param"].__setitem__("size_leaf_vector", "3"), r"leaves hold \[1, 3\] values"),
        (lambda model: model["learner"]["gradient_booster"]["model"]["tree_info"].pop(), "9 trees of 10"),
        (
            lambda model: model["learner"]["gradient_booster"]["model"]["tree_info"].__setitem__(0, 1),
            "adds to output 1 of",
        ),
    ],
)
def test_what_cannot_be_flattened_soundly_says_why(model: Any, change, text) -> None:
    change(model)
    with pytest.raises(Unsupported, match=text):
        flatten(model)


def test_a_cycle_is_not_supported(model: Any) -> None:
    found = tree(model)
    found["left_children"][1], found["right_children"][1] = 1, 2
    with pytest.raises(Unsupported, match="a node of a tree has two parents"):
        flatten(model)


def test_categories_that_are_not_in_the_file_are_not_supported(model: Any) -> None:
    found = next(tree for tree in model["learner"]["gradient_booster"]["model"]["trees"] if tree["categories_nodes"])
    found["categories"] = found["categories"][:-1]
    with pytest.raises(Unsupported, match="the categories of a split are not in the file"):
        flatten(model)
    found["categories_nodes"], found["categories_segments"], found["categories_sizes"] = [], [], []
    with pytest.raises(Unsupported, match="splits by category have no categories"):
        flatten(model)


def test_weights_that_do_not_fit_the_trees_are_not_supported(teacher: Any) -> None:
    model = json.loads(teacher.train("any", booster="dart").save_raw("json"))
    model["learner"]["gradient_booster"]["weight_drop"].pop()
    with pytest.raises(Unsupported, match="dart has 6 weights for 7 trees"):
        flatten(model)


def test_a_threshold_that_is_not_a_number_sends_everything_right(model: Any, rows_of: Any) -> None:
    tree(model)["split_conditions"][0] = float("nan")
    loaded = xgb.Booster({"nthread": 1})
    loaded.load_model(bytearray(json.dumps(model).encode()))
    assert agrees(Forest(flatten(model)), loaded, rows_of(1)) is None


def test_a_matrix_of_another_shape_is_refused(flat: Any) -> None:
    forest = Forest(flat)
    with pytest.raises(ValueError, match="the matrix has 5 columns; the forest reads 6 features"):
        forest.predict(np.zeros((3, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="the matrix has 1 dimensions; expected rows by 6 features"):
        forest.predict(np.zeros(6, dtype=np.float32))
    with pytest.raises(ValueError, match="the matrix has 3 dimensions"):
        forest.predict(np.zeros((1, 1, 6), dtype=np.float32))
    with pytest.raises(ValueError, match="could not convert"):
        forest.predict([["a"] * 6])
    assert forest.predict(np.zeros((0, 6), dtype=np.float32)).shape == (0,)


def test_a_matrix_of_another_layout_or_type_is_copied(flat: Any, rows_of: Any) -> None:
    forest, matrix = Forest(flat), rows_of(1)
    expected = forest.predict(matrix)
    wide = np.zeros((len(matrix), 12), dtype=np.float32)
    wide[:, ::2] = matrix
    for other in (
        np.asfortranarray(matrix),
        matrix.astype(np.float64),
        wide[:, ::2],
        matrix.tolist(),
        matrix.astype(">f4"),
    ):
        np.testing.assert_array_equal(forest.predict(other), expected)
    for part in (matrix[::3], matrix[::-1], matrix[3:20]):
        np.testing.assert_array_equal(forest.predict(part), Forest(flat).predict(part.copy()))


def test_threads_may_ask_at_once(flat: Any, rows_of: Any) -> None:
    forest = Forest(flat)
    matrices = [rows_of(seed) for seed in range(8)]
    expected = [forest.predict(matrix) for matrix in matrices]
    wrong: list[int] = []

    def ask(place: int) -> None:
        for turn in range(100):
            count = (1, 20, 300, 400)[turn % 4]
            if not np.array_equal(forest.predict(matrices[place][:count]), expected[place][:count]):
                wrong.append(place)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_forests_that_are_gone_leave_nothing_behind(flat: Any, rows_of: Any) -> None:
    broken = edited(flat, "left", 0, 0)
    matrix = rows_of(1)

    def turn() -> None:
        Forest(flat).predict(matrix)
        with pytest.raises(ValueError, match="damaged"):
            Forest(broken)
        with pytest.raises(ValueError, match="columns"):
            Forest(flat).predict(matrix[:, :5])

    counts = {name: sys.getrefcount(array) for name, array in flat.arrays.items()}
    turn()
    tracemalloc.start()
    traced = []
    for turns in (50, 500):
        for _ in range(turns):
            turn()
        gc.collect()
        traced.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert traced[1] - traced[0] < 50_000
    assert {name: sys.getrefcount(array) for name, array in flat.arrays.items()} == counts


def test_a_disagreement_is_told_in_words(teacher: Any, flat: Any, booster: Any, rows_of: Any) -> None:
    matrix = rows_of(1)
    wrong = Forest(edited(flat, "perfect_leaf", slice(None), 1e6))
    assert "values are off by more than 1e-05, at most" in str(agrees(wrong, booster, matrix))
    assert str(agrees(wrong, booster, matrix)).startswith("row ")
    other = teacher.train("many")
    assert agrees(Forest(flat), other, matrix) == "the forest answers in the shape (400,), XGBoost in (400, 3)"
    assert agrees(Forest(flat), booster, matrix[:0]) is None
    lost = Forest(edited(flat, "base", 0, np.nan))
    assert "answers nan" in str(agrees(lost, booster, matrix))
