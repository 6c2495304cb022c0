"""From the text of `data.sources` to a place to read from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from perennial_spec.errors import SourceError, SpecError, nearest
from perennial_spec.load import SPEC_FILE, Pipeline
from perennial_spec.source import Source

Kind = Literal["csv", "json", "parquet", "delta", "postgresql"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SUFFIXES: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED = (".gz", ".zst")
_EXPECTED = "files that end with .csv, .json or .parquet; delta:PATH; or postgresql://...#table"


@dataclass(frozen=True)
class Location:
    """One source. `text` may hold secrets: show `written`, and pass other texts through `hide`."""

    name: str
    written: str
    """As the spec has it, `${NAME}` and all."""
    kind: Kind
    where: str
    """`pipeline.yaml:12`."""
    text: str = field(repr=False)
    """With the environment's values in the place of `${NAME}`; an absolute path for local files."""
    values: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def is_local(self) -> bool:
        return "://" not in self.text

    def hide(self, message: str) -> str:
        """`message` without what the environment gave; local paths are no secret, and are needed to find a file."""
        if self.is_local:
            return message
        for name, value in sorted(self.values, key=lambda pair: -len(pair[1])):
            message = message.replace(value, f"${{{name}}}") if value else message
        password = urlsplit(self.text).password
        return message.replace(password, "***").replace(unquote(password), "***") if password else message


def line_of(pipeline: Pipeline, *loc: int | str) -> str:
    """`.../pipeline.yaml:12`: where the spec says something. Reads the file again: for errors only."""
    file = pipeline.folder / SPEC_FILE
    return f"{file}:{Source.read(file).mark(loc)[0] + 1}"


def locate(pipeline: Pipeline, environment: Mapping[str, str]) -> tuple[Location, ...]:
    """Every source of the pipeline.

    Raises:
        SourceError: an environment variable is missing.
        SpecError: not a location that can be read.
    """
    return tuple(locate_one(pipeline, name, environment) for name in sorted(pipeline.spec.data.sources))


def locate_one(pipeline: Pipeline, name: str, environment: Mapping[str, str]) -> Location:
    """One source of the pipeline; raises as `locate`."""
    written = pipeline.spec.data.sources[name]
    wanted = _VARIABLE.findall(written)
    missing = [variable for variable in wanted if not environment.get(variable)]
    where = line_of(pipeline, "data", "sources", name)
    if missing:
        raise SourceError(
            f"source {name!r} needs the environment variable {missing[0]}, which is not set",
            where=where,
            expected=f"a value for ${{{missing[0]}}} in {written}",
            next=_advice(missing[0], environment),
        )
    text = _VARIABLE.sub(lambda match: environment[match[1]], written)
    kind = _kind(text)
    if kind is None:
        raise SpecError(
            f"source {name!r} is not a location that can be read: {written}", where=where, expected=_EXPECTED
        )
    if kind == "postgresql" and not urlsplit(text).fragment:
        raise SpecError(
            f"source {name!r} names no table", where=where, expected="postgresql://host/database#schema.table"
        )
    text = text.removeprefix("delta:")
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    if "://" not in text:
        text = str((pipeline.folder / text).absolute())
    return Location(
        name, written, kind, where, text, tuple((variable, environment[variable]) for variable in set(wanted))
    )


def _kind(text: str) -> Kind | None:
    if text.startswith("delta:"):
        return "delta"
    if text.startswith(("postgresql://", "postgres://")):
        return "postgresql"
    path = Path(urlsplit(text).path if "://" in text else text)
    suffix = Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    return _SUFFIXES.get(suffix.lower())


def _advice(variable: str, environment: Mapping[str, str]) -> str:
    guess = nearest(variable, environment)
    return (
        f"did you mean {guess}? Or set it"
        if guess
        else "set it in the environment of the steps (a secret on Kubernetes)"
    )
