from __future__ import annotations

import stat
from pathlib import Path

import pytest

from perennial_cli.embedded.home import Home, find_home, find_project, write_private
from perennial_cli.embedded.secrets import ensure_secrets
from perennial_spec.errors import PlatformError


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_the_project_is_found_from_a_folder_inside_it(tmp_path: Path) -> None:
    inside = tmp_path / "dags" / "pipelines" / "flights"
    inside.mkdir(parents=True)
    assert find_project(inside) == tmp_path


def test_outside_a_project_the_error_says_what_a_project_is(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="not inside a Perennial project") as caught:
        find_project(tmp_path)
    assert "dags/pipelines" in str(caught.value)


def test_home_is_what_was_said_or_the_variable_or_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dags" / "pipelines").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERENNIAL_HOME", raising=False)
    assert find_home().path == tmp_path / ".perennial"
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "elsewhere"))
    assert find_home().path == tmp_path / "elsewhere"
    assert find_home(tmp_path / "said").path == tmp_path / "said"


def test_a_home_that_cannot_be_made_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="cannot be made") as caught:
        Home(tmp_path / "file" / "state").prepare()
    assert str(tmp_path / "file") in caught.value.where
    assert "PERENNIAL_HOME" in caught.value.next


def test_an_instance_is_the_same_for_ever_and_another_elsewhere(tmp_path: Path) -> None:
    one, other = Home(tmp_path / "one"), Home(tmp_path / "other")
    one.prepare()
    other.prepare()
    assert one.instance() == Home(one.path).instance() != other.instance()


def test_private_files_are_replaced_whole_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert mode(file) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["secret"]


def test_secrets_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    secrets = ensure_secrets(home)
    assert ensure_secrets(home) == secrets
    assert mode(home.secrets) == 0o700
    assert {mode(file) for file in home.secrets.iterdir()} == {0o600}
    assert secrets.postgres_password not in repr(secrets)
