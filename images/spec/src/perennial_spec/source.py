"""YAML text with its line numbers, and validation errors turned into sentences that point at it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perennial_spec.errors import SpecError, nearest

Loc = tuple[int | str, ...]


class _Loader(yaml.SafeLoader):
    """Safe, and refuses a key that is written twice: YAML would silently keep the last."""


def _no_twice(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} is written twice", problem_mark=key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _timestamp_as_text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return loader.construct_scalar(node)


def _booleans_of_yaml_1_2(loader: type[_Loader]) -> None:
    """Only true and false: YAML 1.1 also takes yes, no, on and off, and `retraining.on` is a word of the specification."""
    resolvers = {
        first: [(tag, regex) for tag, regex in pairs if tag != "tag:yaml.org,2002:bool"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    loader.yaml_implicit_resolvers = resolvers
    loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
    )


_booleans_of_yaml_1_2(_Loader)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_twice)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _timestamp_as_text)


@dataclass(frozen=True)
class Source:
    """One YAML file: where it is, its text, its values and its nodes."""

    path: Path
    text: str
    value: Any
    root: yaml.Node | None

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read and parse.

        Raises:
            SpecError: the file is absent, not UTF-8, or not YAML.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SpecError(
                "the file does not exist", where=str(path), next="make a pipeline with: perennial new NAME"
            ) from None
        except UnicodeDecodeError as error:
            raise SpecError(f"not UTF-8 text (byte {error.start})", where=str(path), expected="YAML in UTF-8") from None
        try:
            return cls(path, text, yaml.load(text, _Loader), yaml.compose(text, yaml.SafeLoader))  # noqa: S506 (a SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f"{path}:{mark.line + 1}" if mark else str(path)
            caret = _caret(text, mark.line, mark.column) if mark else ""
            raise SpecError(
                f"not valid YAML: {error.problem}{caret}", where=where, expected="YAML without tabs, each key once"
            ) from None

    def mark(self, loc: Loc) -> tuple[int, int]:
        """Line and column, from 0, of the value or key at `loc`, or of the nearest part of it that exists."""
        node, mark = self.root, (0, 0)
        for part in loc:
            child = _child(node, part)
            if child is None:
                continue  # the name of a union's member, or a key that is missing
            key, node = child
            mark = (key.start_mark.line, key.start_mark.column)
        return mark

    def error(self, error: ValidationError, model: type[BaseModel]) -> SpecError:
        """One SpecError that tells of every problem in `error`, each with line, caret and the nearest valid word."""
        problems = sorted((self._problem(detail, model) for detail in error.errors()), key=lambda problem: problem[0])
        (line, what), *others = problems
        what += "".join(f"\n{self.path}:{at}: {text}" for at, text in others)
        return SpecError(what, where=f"{self.path}:{line}", next="mend it, then run: perennial check")

    def _problem(self, detail: ErrorDetails, model: type[BaseModel]) -> tuple[int, str]:
        loc = detail["loc"]
        line, column = self.mark(loc)
        name = ".".join(str(part) for part in loc if _is_visible(self, loc, part)) or "the file"
        return line + 1, _sentence(detail, name, model) + _caret(self.text, line, column)


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _is_visible(source: Source, loc: Loc, part: int | str) -> bool:
    """Union tags appear in pydantic's locations and nowhere in the file; the last part may be a missing key."""
    if isinstance(part, int):
        return True
    if ":" in part:  # a union's tag: perennial_spec.model names them "gate:..."
        return False
    if part == loc[-1]:
        return True
    node = source.root
    for step in loc:
        child = _child(node, step)
        if step == part:
            return child is not None
        node = child[1] if child else node
    return False


def _caret(text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    if line >= len(lines):
        return ""
    number = str(line + 1)
    return f"\n  {number} | {lines[line]}\n  {' ' * len(number)} | {' ' * column}^"


def _sentence(detail: ErrorDetails, name: str, model: type[BaseModel]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        valid = valid_keys(model, detail["loc"][:-1])
        return f"{name} is not a word of the specification{_choice(str(detail['loc'][-1]), valid)}"
    if kind == "missing":
        return f"{name} is missing, and it is required"
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"{name} is {detail['input']!r}{_choice(str(detail['input']), words)}"
    message = detail["msg"].removeprefix("Value error, ")
    got = "" if isinstance(detail["input"], dict | list | tuple) else f" is {detail['input']!r}"
    return f"{name}{got}: {message[:1].lower()}{message[1:]}"


def _choice(word: str, valid: list[str]) -> str:
    guess = nearest(word, valid)
    if guess:
        return f"; did you mean {guess!r}?"
    return f"; expected one of {', '.join(valid)}" if valid else ""


def valid_keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that the specification allows at `loc`, read from its JSON Schema."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    candidates = [schema]
    for part in loc:
        candidates = [
            _resolve(found, definitions) for schema in candidates for found in _step(schema, part, definitions)
        ]
    return sorted({key for schema in _flatten(candidates, definitions) for key in schema.get("properties", {})})


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return definitions[reference.rsplit("/", 1)[1]] if reference else schema


def _flatten(schemas: list[dict[str, Any]], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    flat: list[dict[str, Any]] = []
    for schema in schemas:
        whole = _resolve(schema, definitions)
        members = [*whole.get("anyOf", []), *whole.get("oneOf", [])]
        flat += _flatten(members, definitions) if members else [whole]
    return flat


def _step(schema: dict[str, Any], part: int | str, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for member in _flatten([schema], definitions):
        if isinstance(part, int):
            found += [member["items"]] if isinstance(member.get("items"), dict) else []
        elif part in member.get("properties", {}):
            found.append(member["properties"][part])
        elif isinstance(member.get("additionalProperties"), dict):
            found.append(member["additionalProperties"])
        else:
            found.append(member)  # the tag of a union
    return found
