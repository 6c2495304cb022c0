"""What keeps a million rows cheap does what a dictionary and a sort would do."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial_controller.quality import keys as keys_module
from perennial_controller.quality.keys import Keys, hashed, last_of_each
from perennial_controller.quality.order import Order

some = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 9)), max_size=40)


@settings(deadline=None)
@given(st.lists(some, max_size=8), st.integers(0, 200))
def test_keys_are_a_dictionary(batches: list[list[tuple[int, int]]], young: int) -> None:
    before, keys_module._YOUNG = keys_module._YOUNG, young  # merged at once, or hardly ever
    try:
        known: dict[int, int] = {}
        keys = Keys()
        for batch in batches:
            new = dict(batch)
            keys.put(np.array(list(new), np.int64), np.array(list(new.values()), np.int64))
            known |= new
            asked = np.arange(-60, 60)
            assert keys.find(asked).tolist() == [known.get(int(key), -1) for key in asked]
        to = np.array([-1, 5, 0, 1, -1, 2, 3, 4, 6, 7])
        keys.moved(to)
        assert keys.find(asked := np.arange(-60, 60)).tolist() == [
            int(to[known[int(key)]]) if int(key) in known else -1 for key in asked
        ]
    finally:
        keys_module._YOUNG = before


@settings(deadline=None)
@given(some)
def test_of_each_key_the_newest_and_of_those_the_last_is_taken(rows: list[tuple[int, int]]) -> None:
    newest: dict[int, tuple[int, int]] = {}
    for place, (key, time) in enumerate(rows):
        if key not in newest or time >= newest[key][0]:
            newest[key] = (time, place)
    found = last_of_each(np.array([key for key, _ in rows], np.int64), np.array([time for _, time in rows], np.int64))
    assert dict(zip(sorted(newest), found.tolist(), strict=True)) == {k: place for k, (_, place) in newest.items()}


def test_equal_strings_have_equal_keys_and_null_has_one() -> None:
    keys = hashed(["a", "b", None, "a"])
    assert keys[0] == keys[3] != keys[1]


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(st.floats(0, 1), max_size=30), st.integers(0, 2**60), st.booleans()), max_size=6))
def test_rows_stay_in_the_order_of_their_scores(turns: list[tuple[list[float], int, bool]]) -> None:
    order, scores = Order(), np.empty(0)
    for new, seed, swept in turns:
        scores = np.append(scores, new)
        wanted = np.random.default_rng(seed).random(len(scores)) < 0.6
        rows = order.follow(wanted, scores)
        assert sorted(rows.tolist()) == np.flatnonzero(wanted).tolist()
        assert (np.diff(scores[rows]) >= 0).all()
        if swept:
            kept = np.random.default_rng(seed + 1).random(len(scores)) < 0.7
            order.moved(np.where(kept, np.cumsum(kept) - 1, -1))
            scores = scores[kept]
