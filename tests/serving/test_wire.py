"""The messages of gRPC, as they are written, as they were compiled, and as mypy knows them, are the same."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from perennial_serving.wire import inference_pb2 as wire

FOLDER = resources.files("perennial_serving.wire")
PROJECT = Path(__file__).parents[2] / "images" / "serving" / "pyproject.toml"
REPEATED = FieldDescriptorProto.LABEL_REPEATED


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def compiled() -> Any:
    found = FileDescriptorProto()
    wire.DESCRIPTOR.CopyToProto(found)
    return found


def words(source: str) -> str:
    """Without comments and layout."""
    return " ".join(re.sub(r"//.*", "", source).split())


def written(message: Any) -> Iterator[str]:
    """A compiled message as its source must have been: messages within first, then the fields, in order."""
    entries = {each.name: each for each in message.nested_type if each.options.map_entry}
    yield f"message {message.name} {{"
    for each in message.nested_type:
        if each.name not in entries:
            yield from written(each)
    choice = None
    for field in message.field:
        inside = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        if choice != inside:
            yield "}" if choice else ""
            yield f"oneof {inside} {{" if inside else ""
            choice = inside
        yield f"{kind(field, entries)} {field.name} = {field.number};"
    yield "} }" if choice else "}"


def kind(field: Any, entries: dict[str, Any]) -> str:
    """The type of a field, as one writes it."""
    if field.type != FieldDescriptorProto.TYPE_MESSAGE:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    else:
        name = field.type_name.rsplit(".", 1)[1]
        if name in entries:
            return f"map<{', '.join(kind(each, {}) for each in entries[name].field)}>"
    return f"repeated {name}" if field.label == REPEATED else name


def test_the_compiled_messages_are_those_of_the_source() -> None:
    found = compiled()
    parts = [f'syntax = "{found.syntax}"; package {found.package};']
    parts += [part for message in found.message_type for part in written(message)]
    expected = words(" ".join(parts)).replace("{ }", "{}")
    assert words(text("inference.proto")) == expected, "run: make render"


def fields_of(cls: ast.ClassDef) -> dict[str, Any]:
    """Names that are annotated in a class, and the classes within."""
    named = {
        each.target.id: None
        for each in cls.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    return named | {each.name: fields_of(each) for each in cls.body if isinstance(each, ast.ClassDef)}


def fields(message: Any) -> dict[str, Any]:
    """The same of a compiled message."""
    numbers = {f"{field.name.upper()}_FIELD_NUMBER": None for field in message.field}
    within = {each.name: fields(each) for each in message.nested_type}
    return {**numbers, **{field.name: None for field in message.field}, **within}


def test_the_types_for_mypy_are_those_of_the_compiled_messages() -> None:
    classes = [each for each in ast.parse(text("inference_pb2.pyi")).body if isinstance(each, ast.ClassDef)]
    typed = {each.name: fields_of(each) for each in classes}
    assert typed == {message.name: fields(message) for message in compiled().message_type}, "run: make render"


def test_the_project_asks_for_a_protobuf_that_can_run_the_compiled_messages() -> None:
    needed = re.search(r"^# Protobuf Python Version: (\S+)$", text("inference_pb2.py"), re.MULTILINE)
    assert needed
    asked: list[str] = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    assert f"protobuf>={needed[1]}" in asked
