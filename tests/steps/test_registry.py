"""The registry against a real MLflow server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from perennial_registry.bundle_download import artifact_path
from perennial_registry.mlflow_rest import Patience, credentials
from perennial_registry.registry import Registry
from perennial_spec import names
from perennial_spec.errors import RegistryError
from perennial_spec.route import Route

QUICK = Patience(connect=2, read=5, attempts=3, pause=0.01)
Answers = Callable[..., str]


@pytest.fixture
def answering() -> Iterator[Answers]:
    """A server that gives the listed `(status, body)` in turn, the last one for ever; `.asked` counts."""
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: tuple[int, str]) -> str:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def upload(trained, uri: str, files: dict[str, bytes]) -> str:
    folder = f"{uri}/bundle"
    for name, content in files.items():
        path = f"{artifact_path(folder)}/{name}"
        httpx.put(f"{trained.url}/api/2.0/mlflow-artifacts/artifacts/{path}", content=content).raise_for_status()
    return folder


# -- versions --


def test_a_model_that_was_never_registered_has_nothing(trained) -> None:
    registry, name = trained.registry, trained.name
    assert registry.versions(name) == []
    assert registry.champion(name) is None
    assert registry.find_by_run_key(name, "run-1") is None
    assert registry.route(name) == Route()
    registry.delete_alias(name, "champion")


def test_registering_twice_with_one_run_key_makes_one_version(trained) -> None:
    first = trained.version(run_key="manual__2013-06-01T00:00:00+00:00")
    again = trained.version(run_key="manual__2013-06-01T00:00:00+00:00")
    other = trained.version(run_key="another")
    assert (first, again, other) == ("1", "1", "2")
    found = trained.registry.find_by_run_key(trained.name, "manual__2013-06-01T00:00:00+00:00")
    assert found is not None
    assert found.version == "1"
    assert found.tags[names.TAG_VERDICT] == "passed"


def test_callers_that_race_get_the_same_version(trained) -> None:
    def register(_: int) -> str:
        with Registry(trained.url) as registry:
            run = trained.run()
            made = registry.register(trained.name, run_id=run[0], source=f"{run[1]}/bundle", run_key="same")
            return made.version

    with ThreadPoolExecutor(6) as pool:
        made = set(pool.map(register, range(6)))
    assert [version.version for version in trained.registry.versions(trained.name)] == list(made)
    assert len(made) == 1


def test_versions_are_in_the_order_of_their_numbers_with_aliases(trained) -> None:
    made = [trained.version() for _ in range(11)]
    trained.registry.set_alias(trained.name, names.ALIAS_CHAMPION, "10")
    versions = trained.registry.versions(trained.name)
    assert [version.version for version in versions] == made == [str(number) for number in range(1, 12)]
    assert [version.aliases for version in versions if version.aliases] == [("champion",)]
    champion = trained.registry.champion(trained.name)
    assert champion is not None
    assert (champion.version, champion.aliases) == ("10", ("champion",))


def test_aliases_move_and_go_and_tags_are_replaced(trained) -> None:
    registry, name = trained.registry, trained.name
    trained.version()
    trained.version()
    registry.set_alias(name, "challenger", "1")
    registry.set_alias(name, "challenger", "2")
    assert registry.by_alias(name, "challenger").version == "2"
    registry.delete_alias(name, "challenger")
    registry.delete_alias(name, "challenger")
    assert registry.by_alias(name, "challenger") is None
    registry.tag(name, "1", names.TAG_VERDICT, "rejected")
    assert registry.get(name, "1").tags[names.TAG_VERDICT] == "rejected"


def test_a_version_that_does_not_exist_is_named(trained) -> None:
    trained.version()
    with pytest.raises(RegistryError, match=f"no version 9 of model '{trained.name}'"):
        trained.registry.get(trained.name, "9")
    with pytest.raises(RegistryError, match="set alias 'champion'"):
        trained.registry.set_alias(trained.name, "champion", "9")


def test_a_source_that_mlflow_refuses_leaves_no_version(trained) -> None:
    with pytest.raises(RegistryError, match="refused to register"):
        trained.registry.register(trained.name, run_id="", source="mlflow-artifacts:/elsewhere", run_key="k")
    assert trained.registry.versions(trained.name) == []


def test_a_quote_in_a_name_is_refused_instead_of_changing_the_search(trained) -> None:
    with pytest.raises(RegistryError, match="quote"):
        trained.registry.find_by_run_key(trained.name, "x' or name != '")


# -- route --


def test_a_route_is_written_as_a_whole_and_read_back_in_order(trained) -> None:
    trained.version()
    route = Route().moved_to({"9": 0.9, "10": 0.1}, "run-1")
    trained.registry.write_route(trained.name, route)
    read = trained.registry.route(trained.name)
    assert read == route
    assert list(read.weights) == ["9", "10"]
    assert read.changed_by == "run-1"


def test_a_route_that_somebody_else_changed_is_not_overwritten(trained) -> None:
    trained.champion()
    read = trained.registry.route(trained.name)
    theirs = trained.registry.write_route(trained.name, read.moved_to({"1": 0.5, "2": 0.5}, "a person"))
    with pytest.raises(RegistryError, match="changed by a person") as caught:
        trained.registry.write_route(trained.name, read.moved_to({"2": 1.0}, "run-1"))
    assert "revision 1 before this change, found revision 2" in str(caught.value)
    assert trained.registry.route(trained.name) == theirs


@pytest.mark.parametrize("text", ["", "{", '{"weights": {"1": 0.4}}', '{"weight": {"1": 1}}', "null"])
def test_a_route_that_cannot_be_read_is_an_error_and_never_a_guess(trained, text: str) -> None:
    trained.version()
    trained.registry.rest.post("registered-models/set-tag", name=trained.name, key=names.TAG_ROUTE, value=text)
    with pytest.raises(RegistryError, match="cannot be read") as caught:
        trained.registry.route(trained.name)
    assert names.TAG_ROUTE in caught.value.where
    with pytest.raises(RegistryError, match="cannot be read"):
        trained.registry.write_route(trained.name, Route().moved_to({"1": 1.0}, "run-1"))


# -- bundle --


def test_a_bundle_arrives_whole(trained, tmp_path: Path) -> None:
    run_id, uri = trained.run()
    files = {"model.ubj": b"\x00\x01" * 100_000, "code/features.py": b"x = 1\n", "a name with space.json": b"{}"}
    folder = upload(trained, uri, files)
    made = trained.registry.register(
        trained.name, run_id=run_id, source=folder, run_key="k", tags={names.TAG_BUNDLE_URI: folder}
    )
    target = trained.registry.download_bundle(trained.name, made.version, tmp_path)
    assert target == tmp_path / trained.name / "1"
    found = {str(file.relative_to(target)): file.read_bytes() for file in target.rglob("*") if file.is_file()}
    assert found == files
    (target / "model.ubj").write_bytes(b"kept")
    assert trained.registry.download_bundle(trained.name, made.version, tmp_path) == target
    assert (target / "model.ubj").read_bytes() == b"kept"
    assert [entry.name for entry in target.parent.iterdir()] == ["1"]


def test_a_version_without_bundle_and_a_bundle_without_files_are_errors(trained, tmp_path: Path) -> None:
    plain = trained.version()
    with pytest.raises(RegistryError, match="has no bundle"):
        trained.registry.download_bundle(trained.name, plain, tmp_path)
    empty = trained.version(**{names.TAG_BUNDLE_URI: "mlflow-artifacts:/no/such/folder"})
    with pytest.raises(RegistryError, match="empty"):
        trained.registry.download_bundle(trained.name, empty, tmp_path)
    assert list((tmp_path / trained.name).iterdir()) == []


@pytest.mark.parametrize("uri", ["s3://bucket/x", "/etc", "mlflow-artifacts:/", "mlflow-artifacts:"])
def test_only_folders_of_the_artifact_store_are_downloaded(uri: str) -> None:
    with pytest.raises(RegistryError, match="not in MLflow's artifact store"):
        artifact_path(uri)


def test_a_store_that_lists_a_path_outside_the_folder_is_refused(trained, answering: Answers, tmp_path: Path) -> None:
    version = (
        '{"model_version": {"name": "m", "version": "1", "tags": '
        f'[{{"key": "{names.TAG_BUNDLE_URI}", "value": "mlflow-artifacts:/b"}}]}}}}'
    )
    url = answering((200, version), (200, '{"files": [{"path": "..", "is_dir": false, "file_size": 3}]}'))
    with pytest.raises(RegistryError, match="inside the folder"):
        Registry(url, QUICK).download_bundle("m", "1", tmp_path)


# -- the server --


def test_a_registry_that_is_away_says_where_and_what_to_do(answering: Answers) -> None:
    with pytest.raises(RegistryError, match="does not answer") as caught:
        Registry("http://me:hidden@127.0.0.1:1", QUICK).route("m")
    text = str(caught.value)
    assert "http://127.0.0.1:1" in text
    assert "tried 3 times" in text
    assert "perennial status" in text
    assert "hidden" not in text


def test_a_server_that_is_overloaded_for_a_moment_is_asked_again(answering: Answers) -> None:
    url = answering((503, "busy"), (500, "locked"), (200, '{"registered_model": {"name": "m", "tags": []}}'))
    assert Registry(url, QUICK).route("m") == Route()


def test_a_server_that_stays_overloaded_is_given_up(answering: Answers) -> None:
    with pytest.raises(RegistryError, match="HTTP 503"):
        Registry(answering((503, "busy")), QUICK).route("m")


def test_something_else_than_mlflow_is_recognised(answering: Answers) -> None:
    with pytest.raises(RegistryError, match="not answered by MLflow"):
        Registry(answering((200, "<html>a proxy</html>")), QUICK).route("m")
    with pytest.raises(RegistryError, match="expected: http"):
        Registry("sqlite:///mlflow.db")


def test_credentials_come_from_mlflows_own_variables() -> None:
    assert credentials({"MLFLOW_TRACKING_TOKEN": "t"}) == ({"Authorization": "Bearer t"}, None)
    assert credentials({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}) == ({}, ("u", "p"))
    assert credentials({}) == ({}, None)


def test_the_registry_does_not_import_mlflow() -> None:
    code = "import sys, perennial_registry.registry; print(sorted({'mlflow', 'httpx', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).strip() == "[]"
