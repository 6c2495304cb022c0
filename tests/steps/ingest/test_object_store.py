"""Files in an object store, spoken to over HTTP: a small server keeps S3's contract for listing and reading."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import duckdb
import pytest

from perennial_spec.step import Verdict

SECRET = "an-s3-secret-key"


@dataclass
class Bucket:
    """The objects of bucket `lake`, and what was asked of it."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def listing(self, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>&quot;{hash(data)}&quot;</ETag>"
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        count = entries.count("<Key>")
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>lake</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ).encode()


class Handler(BaseHTTPRequestHandler):
    """What S3 answers to HEAD, GET (with ranges) and ListObjectsV2."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        _, _, key = unquote(parts.path).lstrip("/").partition("/")
        self.bucket.asked.append(f"{self.command} {key}")
        if not key:
            self._answer(200, self.bucket.listing(parse_qs(parts.query).get("prefix", [""])[0]), body)
        elif key in self.bucket.objects:
            self._object(self.bucket.objects[key], body)
        else:
            self._answer(404, b"", body)

    def _object(self, data: bytes, body: bool) -> None:
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if not wanted:
            return self._answer(200, data, body)
        first, last = wanted.split("-")
        start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
        return self._answer(206, data[start : end + 1], body, {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _answer(self, code: int, data: bytes, body: bool, more: dict[str, str] | None = None) -> None:
        self.send_response(code)
        headers = {"Content-Length": str(len(data)), "Last-Modified": formatdate(1704067200, usegmt=True)} | (
            more or {}
        )
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    held = Bucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"bucket": held}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    held.url = f"endpoint_override=127.0.0.1:{server.server_address[1]}&scheme=http&region=us-east-1"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield held
    server.shutdown()
    server.server_close()
    thread.join()


def parquet(data_room, month: str, rows: int) -> bytes:
    file = data_room.root / "part.parquet"
    select = f"""SELECT '{month}-' || range AS id, TIMESTAMP '{month}-01' + INTERVAL 1 HOUR * range AS "at", range / 2 AS x,
        'a' AS place, range % 2 AS late FROM range({rows})"""
    duckdb.execute(f"COPY ({select}) TO '{file}'")
    return file.read_bytes()


def test_files_that_match_are_read_from_an_object_store_and_only_when_something_changed(
    data_room, bucket: Bucket
) -> None:
    bucket.objects["events/2024-01.parquet"] = parquet(data_room, "2024-01", 30)
    bucket.objects["events/deep/2024-02.parquet"] = parquet(data_room, "2024-02", 20)
    bucket.objects["events/readme.txt"] = b"no data"
    data_room.pipeline(data={"sources": {"events": f"s3://lake/events/*.parquet?{bucket.url}"}})
    result = data_room.ingest()
    assert result.verdict is Verdict.PASS, result.failure
    assert (result.outputs["rows"], result.outputs["landed"]) == (50, ["2024-01", "2024-02"])
    bucket.asked.clear()
    assert data_room.ingest().outputs["landed"] == []
    assert not [asked for asked in bucket.asked if asked.endswith(".parquet") and asked.startswith("GET")]
    bucket.objects["events/2024-03.parquet"] = parquet(data_room, "2024-03", 5)
    assert data_room.ingest().outputs["landed"] == ["2024-03"]


def test_no_object_matches(data_room, bucket: Bucket) -> None:
    data_room.pipeline(data={"sources": {"events": f"s3://lake/events/*.parquet?{bucket.url}"}})
    result = data_room.ingest()
    assert result.failure is not None
    assert "no file matches s3://lake/events/*.parquet" in result.failure.message


def test_an_object_store_that_does_not_answer(data_room, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    address = "s3://lake/events/*.parquet?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
    data_room.pipeline(data={"sources": {"events": address}})
    result = data_room.ingest()
    assert result.failure is not None
    assert (result.failure.type, result.verdict) == ("SourceError", Verdict.ERROR)
    assert "source 'events' does not answer" in result.failure.message
    assert SECRET not in result.to_message() + caplog.text
