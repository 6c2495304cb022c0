"""Keys and TLS: who has no key learns nothing but that the server lives, and every way to get the files wrong is told at the start."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from perennial_serving.auth import Keys, tls_context
from perennial_serving.settings import Settings
from perennial_spec.errors import PlatformError

KEY = "0123456789abcdef0123"
OTHER = "another-key-of-some-length"


def key_file(folder: Path, text: str = f"# people\nalice:{KEY}\n\n") -> Path:
    file = folder / "keys"
    file.write_text(text)
    return file


def test_a_key_is_taken_in_either_header(tmp_path: Path) -> None:
    keys = Keys.load(key_file(tmp_path))
    assert keys.allow(f"Bearer {KEY}".encode(), None)
    assert keys.allow(f"bearer  {KEY} ".encode(), None)
    assert keys.allow(None, KEY.encode())
    for bearer, key in (
        (None, None),
        (b"Basic x", None),
        (KEY.encode(), None),
        (b"Bearer x", b"y"),
        (None, b"alice:" + KEY.encode()),
    ):
        assert not keys.allow(bearer, key)


def test_a_file_that_changes_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file = key_file(tmp_path)
    keys = Keys.load(file)
    file.write_text(OTHER)
    keys._look_at = 0
    assert keys.allow(None, OTHER.encode()) and not keys.allow(None, KEY.encode())
    file.write_text("short")
    keys._look_at = 0
    assert keys.allow(None, OTHER.encode())
    file.unlink()
    keys._look_at = 0
    assert keys.allow(None, OTHER.encode())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "has no key"),
        ("# nobody\n", "has no key"),
        (f"{KEY}\nshort\n", "has no key in line 2"),
        (f"a:{KEY[:9]} {KEY}", "line 1"),
        (f"{KEY}é", "not ASCII"),
    ],
)
def test_a_file_without_keys_is_refused_and_not_quoted(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(PlatformError, match=what) as caught:
        Keys.load(file)
    assert KEY not in str(caught.value)
    assert "openssl rand" in caught.value.next
    with pytest.raises(PlatformError, match="cannot be read"):
        Keys.load(tmp_path / "missing")


def test_without_a_key_only_health_is_told(pipeline: Any, bundles: Any, serve: Any, row: Any, tmp_path: Path) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    server = serve(pipeline, api_keys_file=str(key_file(tmp_path)), metrics_open=False)
    for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/health", "/version"):
        assert server.http.get(path).status_code == 200
    for path in ("/", "/metrics", "/docs", "/openapi.json", "/v2", f"/v2/models/{pipeline.name}"):
        answer = server.http.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    body = {"dataframe_records": [row]}
    wrong = {"Authorization": "Bearer wrong"}
    assert server.http.post("/invocations", json=body).json()["error_code"] == "UNAUTHENTICATED"
    assert "not good here" in server.http.post("/invocations", json=body, headers=wrong).json()["message"]
    assert "needed" in server.http.post(f"/v2/models/{pipeline.name}/infer", json={}).json()["error"]
    for good in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
        assert server.http.post("/invocations", json=body, headers=good).status_code == 200
        # Without the client's other headers, as the short way takes it.
        assert (
            server.http.post("/invocations", json=body, headers={**good, "Connection": "keep-alive"}).status_code == 200
        )
    metrics = server.http.get("/metrics", headers={"X-API-Key": KEY}).text
    assert 'code="401"' in metrics
    document = server.http.get("/openapi.json", headers={"X-API-Key": KEY}).json()
    assert document["security"] == [{"bearer": []}, {"key": []}]


# -- TLS --


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pems")
    for name in ("server", "other"):
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"), *subject)  # fmt: skip
    openssl(
        "pkey",
        "-in",
        str(folder / "server.key"),
        "-aes256",
        "-passout",
        "pass:secret",
        "-out",
        str(folder / "locked.key"),
    )
    return folder


def test_the_server_speaks_tls_and_only_to_those_it_knows(
    pipeline: Any, bundles: Any, serve: Any, row: Any, pems: Path
) -> None:
    pipeline.route({pipeline.register(bundles["one"]): 1.0})
    files = {"tls_cert": str(pems / "server.crt"), "tls_key": str(pems / "server.key")}
    server = serve(pipeline, ready=False, **files, tls_client_ca=str(pems / "other.crt"))
    context = ssl.create_default_context(cafile=str(pems / "server.crt"))
    url = server.url.replace("http://", "https://")
    with httpx.Client(base_url=url, verify=context) as stranger, pytest.raises(httpx.HTTPError):
        stranger.get("/v2/health/live")
    context.load_cert_chain(pems / "other.crt", pems / "other.key")
    with httpx.Client(base_url=url, verify=context) as known:
        assert known.get("/v2/health/live").status_code == 200
    with pytest.raises(httpx.HTTPError):
        server.http.get("/v2/health/live")


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"tls_cert": "server.crt"}, "PERENNIAL_SERVING_TLS_KEY is not set"),
        ({"tls_key": "server.key"}, "PERENNIAL_SERVING_TLS_CERT is not set"),
        ({"tls_cert": "gone.crt", "tls_key": "server.key"}, "gone.crt is not there"),
        ({"tls_cert": "server.crt", "tls_key": "other.key"}, "does not belong"),
        ({"tls_cert": "server.crt", "tls_key": "locked.key"}, "is encrypted"),
        ({"tls_cert": "server.key", "tls_key": "server.key"}, "holds no certificate"),
        ({"tls_cert": "server.crt", "tls_key": "server.crt"}, "holds no private key"),
        (
            {"tls_cert": "server.crt", "tls_key": "server.key", "tls_client_ca": "server.key"},
            "certificate of an authority",
        ),
    ],
)
def test_files_that_tls_cannot_use_are_named(pems: Path, files: dict[str, str], what: str) -> None:
    settings = Settings(**{field: str(pems / name) for field, name in files.items()})  # type: ignore[arg-type]
    with pytest.raises(PlatformError, match=what):
        tls_context(settings)


def test_without_files_there_is_no_tls() -> None:
    assert tls_context(Settings()) is None
