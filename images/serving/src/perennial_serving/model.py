"""A model version that can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from perennial_features.reference import Reference
from perennial_features.schema import FeatureSchema, InputKind
from perennial_serving.counting import VersionCounters
from perennial_serving.intake import Intake
from perennial_serving.model_process import ProcessModel
from perennial_serving.oip.outputs import PLATFORM, PLATFORM_PYFUNC, metadata
from perennial_serving.question import Question
from perennial_serving.scorer import Scorer

VERSION_HEADER = "X-Perennial-Version"
ID_HEADER = "X-Perennial-Prediction-Id"
"""Only when the request has one row."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A version that can answer."""

    pipeline: str
    version: str
    schema: FeatureSchema
    reference: Reference
    scorer: Scorer | None
    """Answers rows of a bundle; None for a model of another flavour, whose `process` does."""
    counters: VersionCounters
    entity: str
    """The column that rows are assigned and joined by."""
    entity_redacted: bool
    """Only a digest of the entity may be stored; see `stored_key`."""
    logged: tuple[str, ...]
    """Columns that the prediction log may hold."""
    intake: Intake | None = None
    """Typed columns for plain rows; None where every request goes the general way."""
    log_share: float = 1.0
    """Share of the predictions that is logged."""
    process: ProcessModel | None = None
    outputs: int = 1
    """Values per row."""
    text: bool = False
    """The answers are text."""
    uri: str = ""
    folder: Path = field(default_factory=Path)
    trained: float = 0.0
    """When the version was registered: seconds since 1970; 0: the registry has not said."""
    question: Question | None = None
    """What it is asked every so often; None: nothing is known that it must answer."""

    @cached_property
    def kinds(self) -> dict[str, InputKind]:
        """The model's inputs."""
        return {column.name: column.kind for column in self.schema.inputs}

    @cached_property
    def nameless(self) -> bool:
        """The model takes a matrix: its columns are named 0, 1, ..."""
        return list(self.kinds) == [str(place) for place in range(len(self.kinds))]

    @cached_property
    def mark(self) -> int:
        """What prediction ids are checked by; see `ids`."""
        return version_mark(self.version)

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """In the Open Inference Protocol, for these versions."""
        platform = PLATFORM if self.process is None else PLATFORM_PYFUNC
        width = self.outputs
        return metadata(self.pipeline, versions, self.schema, width, text=self.text, platform=platform)

    # -- the unchanging parts of an answer --

    @cached_property
    def quoted_version(self) -> bytes:
        return f'"{self.version}"'.encode()

    @cached_property
    def _head(self) -> bytes:
        return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{VERSION_HEADER.lower()}: {self.version}\r\n".encode()

    @cached_property
    def head_of_one(self) -> bytes:
        """A template: prediction id, length, body."""
        return self._head + ID_HEADER.lower().encode() + b": %b\r\ncontent-length: %d\r\n\r\n%b"

    @cached_property
    def head_of_many(self) -> bytes:
        """A template: length, body."""
        return self._head + b"content-length: %d\r\n\r\n%b"

    @cached_property
    def body_of_one(self) -> bytes:
        """A template: score, prediction id."""
        return b'{"predictions":[%b],"version":[' + self.quoted_version + b'],"prediction_id":["%b"]}'

    @cached_property
    def oip_body(self) -> bytes:
        """A template: the request's id, and three times the number of rows and their values."""
        tensors = ",".join(
            f'{{"name":"{name}","datatype":"{datatype}","shape":[%d],"data":[%b]}}'
            for name, datatype in (("score", "FP64"), ("version", "BYTES"), ("prediction_id", "BYTES"))
        )
        head = f'{{"model_name":"{self.pipeline}","model_version":"{self.version}",%b"outputs":[{tensors}]}}'
        return head.encode()


def version_mark(version: str) -> int:
    """64 bits that tell versions of a pipeline apart."""
    return int.from_bytes(blake2b(version.encode(), digest_size=8).digest())


def stored_key(pipeline: str, key: str) -> str:
    """A redacted entity as the logs may hold it: a digest, the same for predictions and labels, so that they can still be joined."""
    return blake2b(key.encode(), digest_size=16, person=pipeline.encode()[:16]).hexdigest()
