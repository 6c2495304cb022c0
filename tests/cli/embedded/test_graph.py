from __future__ import annotations

import pytest

from perennial_cli.embedded.graph import levels, without
from perennial_cli.embedded.part import Part
from perennial_spec.errors import PlatformError


def part(name: str, *needs: str) -> Part:
    return Part(name, ("true",), needs=needs)


def test_a_part_comes_after_all_that_it_needs() -> None:
    parts = [part("airflow", "migrate"), part("migrate", "postgres"), part("prometheus"), part("postgres")]
    assert levels(parts) == [["prometheus", "postgres"], ["migrate"], ["airflow"]]


def test_an_unknown_need_names_the_part_and_the_nearest_name() -> None:
    with pytest.raises(PlatformError, match="part 'airflow' needs 'postgre', which is not a part") as caught:
        levels([part("airflow", "postgre"), part("postgres")])
    assert "did you mean 'postgres'?" in str(caught.value)


def test_needs_in_a_circle_are_refused_with_the_circle() -> None:
    with pytest.raises(PlatformError, match=r"circle: .*a.*b"):
        levels([part("a", "b"), part("b", "a")])


def test_two_parts_of_one_name_are_refused() -> None:
    with pytest.raises(PlatformError, match="two parts are named 'a'"):
        levels([part("a"), part("a")])


def test_a_part_left_out_is_no_longer_needed() -> None:
    left = without([part("mlflow"), part("server", "mlflow", "postgres"), part("postgres")], ["mlflow"])
    assert [(one.name, one.needs) for one in left] == [("server", ("postgres",)), ("postgres", ())]


def test_leaving_out_what_does_not_exist_names_the_nearest_part() -> None:
    with pytest.raises(PlatformError, match="no part named 'prometeus'") as caught:
        without([part("prometheus")], ["prometeus"])
    assert "did you mean 'prometheus'?" in str(caught.value)
