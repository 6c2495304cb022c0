from __future__ import annotations

import pytest

from perennial_cli.insight.bins import in_order, largest_changes, spoken
from perennial_cli.insight.story import Bin


def test_numeric_bins_rise_and_missing_is_last() -> None:
    names = ["missing", "(10,inf)", "(-inf,-2.5]", "(2,10]", "(-2.5,2]"]
    found = in_order(Bin(name, 0.2, 0.2) for name in names)
    assert [each.name for each in found] == ["(-inf,-2.5]", "(-2.5,2]", "(2,10]", "(10,inf)", "missing"]


def test_categories_come_by_their_share_and_other_and_missing_last() -> None:
    bins = [Bin("missing", 0.5, 0), Bin("other", 0.4, 0), Bin("Oslo", 0.02, 0), Bin("Rome", 0.08, 0)]
    assert [each.name for each in in_order(bins)] == ["Rome", "Oslo", "other", "missing"]


def test_of_many_bins_those_are_kept_that_changed_most_in_their_order() -> None:
    bins = tuple(Bin(str(i), 0.1, 0.1 + (0.1 if i in {2, 7} else 0)) for i in range(10))
    assert [each.name for each in largest_changes(bins, 2)] == ["2", "7"]
    assert largest_changes(bins, 10) == bins


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("(-inf,12.5]", "to 12.5"),
        ("(12.5,14]", "12.5 to 14"),
        ("(14,inf)", "above 14"),
        ("(-inf,inf)", "any number"),
        ("(9.099464,10.654304]", "9.099 to 10.65"),
        ("(123456.7,1e+07]", "123457 to 10000000"),
        ("(1.00001,1.00002]", "1.00001 to 1.00002"),
        ("Oslo", "Oslo"),
        ("(odd", "(odd"),
        ("missing", "missing"),
    ],
)
def test_bins_are_named_in_words(name: str, words: str) -> None:
    assert spoken(name) == words
