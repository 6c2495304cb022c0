"""A model server that speaks gRPC, and the two ways to speak to it: tritonclient's own, and messages sent as they are."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as theirs
from tritonclient.utils import InferenceServerException

from perennial_serving.settings import Settings
from perennial_spec.platform import Platform

TYPES = {str: "BYTES", float: "FP64", bool: "BOOL", int: "INT64"}
FIELDS = {str: "bytes_contents", float: "fp64_contents", bool: "bool_contents", int: "int64_contents"}


@contextmanager
def speaking(like: Any, root: Path) -> Iterator[Any]:
    """A server that serves what `like` serves, and speaks gRPC on `settings.grpc_port`."""
    settings = Settings(
        port=0,
        grpc_port=free_port(),
        cache_dir=str(root / "cache"),
        pipelines=(like.name,),
        poll_seconds=0.1,
        max_rows=100,
        max_body_bytes=100_000,
    )
    server = type(like)(Platform(mlflow_url=like.platform.mlflow_url, store=str(root / "store")), settings)
    server.until_ready()
    yield server
    server.stop()


@contextmanager
def calling(port: int) -> Iterator[Callable[..., Any]]:
    """Call a method with a message of tritonclient's, or with bytes: `call("ModelInfer", message, Answer)`."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:

        def call(method: str, message: Any, answer: Any = None, **options: Any) -> Any:
            path = f"/inference.GRPCInferenceService/{method}"
            body = message if isinstance(message, bytes) else message.SerializeToString()
            found, said = channel.unary_unary(path).with_call(body, timeout=20, **options)
            return (answer.FromString(found), dict(said.trailing_metadata())) if answer else found

        yield call


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def arrays(rows: list[dict[str, Any]]) -> list[Any]:
    """The rows as tritonclient's inputs, which are raw."""
    inputs = []
    for name, first in rows[0].items():
        tensor = triton.InferInput(name, [len(rows)], TYPES[type(first)])
        dtype = object if isinstance(first, str) else None
        inputs.append(tensor.set_data_from_numpy(np.array([row[name] for row in rows], dtype=dtype)))
    return inputs


def contents(rows: list[dict[str, Any]], name: str) -> Any:
    """The rows as a message with typed contents."""
    message = theirs.ModelInferRequest(model_name=name)
    for column, first in rows[0].items():
        tensor = message.inputs.add(name=column, datatype=TYPES[type(first)], shape=[len(rows)])
        values = [row[column].encode() if isinstance(first, str) else row[column] for row in rows]
        getattr(tensor.contents, FIELDS[type(first)]).extend(values)
    return message


def refused(code: str, ask: Callable[[], Any]) -> str:
    """The message of the status that `ask` ends with."""
    with pytest.raises((grpc.RpcError, InferenceServerException)) as caught:
        ask()
    error = caught.value
    if isinstance(error, InferenceServerException):
        assert error.status() == f"StatusCode.{code}", error
        return str(error.message())
    assert error.code().name == code, error
    return str(error.details())
