"""One model version as a folder: all that serving needs, and proof that it still answers as it did when it was trained.

bundle.json      format, kind, schema, meta, digests of the other files
model.ubj        the booster, cut to its best iteration
reference.json   reference histograms
features.py      the pipeline's feature code, as trained (under its own name)
spec.json        the pipeline's spec, as trained
smoke.json       a few rows of training data as a request, and what the model answered
holdout.npz      encoded rows of the holdout, and what XGBoost answered; not in the bundles of older releases
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from perennial_features.code import Array, Columns, FeatureCode, load_features
from perennial_features.encode import Encoded, encode_all
from perennial_features.engine import Predictor, Saveable, load_booster
from perennial_features.holdout import Holdout, spread
from perennial_features.reference import Counts, Reference
from perennial_features.request import MAX_ROWS, columns_from_rows
from perennial_features.rowwise import check_row_wise
from perennial_features.schema import FeatureSchema, missing
from perennial_spec.base import Model
from perennial_spec.errors import FeatureError, ModelError, PerennialError, RequestError
from perennial_spec.model import ModelKind

FORMAT = 1
SMOKE_ROWS = 32
MANIFEST, MODEL, REFERENCE, SPEC, SMOKE = "bundle.json", "model.ubj", "reference.json", "spec.json", "smoke.json"
HOLDOUT = "holdout.npz"

Scores = np.ndarray[tuple[int], np.dtype[np.float64]]


class Manifest(Model):
    """bundle.json."""

    format: int
    kind: ModelKind
    features_file: str
    features_function: str
    schema_: FeatureSchema
    meta: dict[str, Any]
    digests: dict[str, str]
    """SHA-256 by file name."""


@dataclass(frozen=True)
class Smoke:
    """Rows of training data as a client would send them, and the model's answers."""

    columns: dict[str, list[Any]]
    predictions: list[float]


@dataclass(frozen=True)
class Scored:
    """Answers, and what they add to the bin counters."""

    predictions: Scores
    """float64[rows]."""
    increments: Counts
    """int64[bins] in the order of `Reference.series`."""


@dataclass(frozen=True)
class Bundle:
    """A model version, ready to answer."""

    kind: ModelKind
    schema: FeatureSchema
    reference: Reference
    code: FeatureCode
    booster: Predictor
    """XGBoost's, or another that answers alike: see `open_model` of `load`."""
    spec: dict[str, Any]
    """The pipeline's spec as trained, JSON."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Run key, data version, code version, ..."""
    smoke: Smoke = field(default_factory=lambda: Smoke({}, []))
    holdout: Holdout | None = None
    """None in a bundle that an older release trained."""

    def predict(self, columns: Columns) -> Scores:
        """float64[rows]: the probability of the positive class (classifier), the value (regressor), or the score by
        which rows of one list are put in order, the highest first (ranker). float64[rows, classes] where a classifier gives
        a probability to each of several.

        Args:
            columns: typed input columns, as `columns_from_rows` makes them.

        Raises:
            FeatureError: the pipeline's feature code cannot do with these rows.
        """
        return self.predict_encoded(self.encode(columns).matrix)

    def score(self, columns: Columns) -> Scored:
        """As `predict`, with the increments of the bin counters."""
        encoded = self.encode(columns)
        predictions = self.predict_encoded(encoded.matrix)
        return Scored(predictions, self.reference.count(encoded, predictions))

    def encode(self, columns: Columns) -> Encoded:
        """The model's matrix, with the mask of unseen categories."""
        return encode_all(self.code.apply(columns), self.schema)

    def predict_encoded(self, matrix: Array) -> Scores:
        """float64[rows] from float32[rows, features]; thread-safe."""
        found: Scores = self.booster.inplace_predict(matrix).astype(np.float64)
        return found

    def columns(self, data: Any, max_rows: int = MAX_ROWS) -> dict[str, Array]:
        """Untrusted request data as typed columns; see `columns_from_rows`."""
        return columns_from_rows(data, self.schema, max_rows)

    def save(self, folder: Path) -> None:
        """Write the bundle into `folder`, which is made.

        Raises:
            ModelError: the model was opened for answers only, and cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if not isinstance(self.booster, Saveable):
            raise ModelError(
                "the model was opened for answers only, and cannot be written",
                where=str(folder),
                expected="a booster of XGBoost",
                next="copy the folder that it was loaded from",
            )
        self.booster.save_model(folder / MODEL)
        (folder / REFERENCE).write_text(self.reference.to_json())
        (folder / self.code.file.name).write_bytes(self.code.file.read_bytes())
        (folder / SPEC).write_text(json.dumps(self.spec, indent=1, sort_keys=True))
        (folder / SMOKE).write_text(json.dumps({"columns": self.smoke.columns, "predictions": self.smoke.predictions}))
        files = [MODEL, REFERENCE, self.code.file.name, SPEC, SMOKE]
        if self.holdout is not None:
            self.holdout.save(folder / HOLDOUT)
            files.append(HOLDOUT)
        manifest = Manifest(
            format=FORMAT,
            kind=self.kind,
            features_file=self.code.file.name,
            features_function=self.code.function,
            schema_=self.schema,
            meta=self.meta,
            digests={name: _digest(folder / name) for name in files},
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path, threads: int = 1, open_model: Callable[[str, int], Predictor] = load_booster) -> Bundle:
        """Read a bundle, and ask the model the smoke questions again.

        Args:
            folder: what `save` wrote.
            threads: of one prediction. More than one pays only for batches of thousands of rows.
            open_model: from the model's file and the number of threads to what answers. Only the default needs XGBoost.

        Raises:
            ModelError: a file is missing or changed, or the answers are not those of training.
        """
        manifest = _manifest(folder)
        _verify_files(folder, manifest)
        smoke = json.loads((folder / SMOKE).read_text())
        bundle = cls(
            kind=manifest.kind,
            schema=manifest.schema_,
            reference=Reference.from_json((folder / REFERENCE).read_text()),
            code=_code(folder, manifest),
            booster=open_model(str(folder / MODEL), threads),
            spec=json.loads((folder / SPEC).read_text()),
            meta=manifest.meta,
            smoke=Smoke(smoke["columns"], smoke["predictions"]),
            holdout=_holdout(folder, manifest),
        )
        bundle.verify()
        return bundle

    def verify(self) -> None:
        """Raises:
        ModelError: the model does not answer the smoke rows as it did when it was trained, or answers one of them
            otherwise alone than with the others.
        """
        if not self.smoke.predictions:
            return
        try:
            columns = self.columns(self.smoke.columns)
            self._check_row_wise(columns)
            answers = self.predict(columns)
        except (FeatureError, RequestError) as error:
            raise ModelError(
                f"the model cannot answer its own training rows: {error.what}",
                where=error.where,
                expected=error.expected,
                next=f"{error.next}; then train again" if error.next else "correct the feature code, and train again",
            ) from error
        if not close(answers, np.array(self.smoke.predictions)):
            worst = float(np.max(np.abs(answers - np.array(self.smoke.predictions))))
            raise ModelError(
                f"the model answers its own training rows differently now (by up to {worst:.3g})",
                expected="the answers recorded in training",
                next="look for feature code that depends on the time, the environment or other rows; then train again",
            )

    def _check_row_wise(self, columns: Columns) -> None:
        # Each row goes through the conversion of a request of its own: its columns may get other types alone.
        single = (
            (row, self.columns({name: values[row : row + 1] for name, values in self.smoke.columns.items()}))
            for row in range(len(self.smoke.predictions))
        )
        check_row_wise(self.code, self.code.apply(columns), single)


def close(answers: Array, recorded: Array) -> bool:
    """Whether these are the answers to smoke rows that were recorded in training. float32 models: other processors differ in the last bits
    of the feature code's arithmetic, never more."""
    return bool(np.allclose(answers, recorded, rtol=1e-4, atol=1e-6))


def smoke_of(columns: Columns, rows: int = SMOKE_ROWS) -> dict[str, list[Any]]:
    """Up to `rows` rows, evenly spread, as a client would send them: JSON with null and ISO timestamps."""
    picked = smoke_places(len(next(iter(columns.values()))), rows)
    return {name: _to_json(values[picked]) for name, values in columns.items()}


def smoke_places(total: int, rows: int = SMOKE_ROWS) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which rows `smoke_of` picks."""
    return spread(total, rows)


def _to_json(values: Array) -> list[Any]:
    if values.dtype.kind == "M":
        return [None if np.isnat(value) else f"{value}Z" for value in values]
    absent = missing(values)
    return [None if gone else value for gone, value in zip(absent, values.tolist(), strict=True)]


def _manifest(folder: Path) -> Manifest:
    try:
        text = (folder / MANIFEST).read_text()
    except OSError as error:
        raise ModelError(
            f"the bundle has no {MANIFEST}: {error.strerror}", where=str(folder), next="train again"
        ) from None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{MANIFEST} is not JSON: {error}", where=str(folder), next="train again") from None
    format_ = found.get("format") if isinstance(found, Mapping) else None
    if format_ != FORMAT:
        raise ModelError(
            f"the bundle has format {format_!r}",
            where=str(folder),
            expected=f"format {FORMAT}",
            next="serve it with the release that trained it, or train again",
        )
    try:
        return Manifest.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(
            f"{MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}", where=str(folder), next="train again"
        ) from None


def _verify_files(folder: Path, manifest: Manifest) -> None:
    for name, digest in manifest.digests.items():
        if not (folder / name).is_file():
            raise ModelError(f"the bundle has lost its {name}", where=str(folder), next="train again")
        if _digest(folder / name) != digest:
            raise ModelError(f"{name} has changed since training", where=str(folder), next="train again")


def _holdout(folder: Path, manifest: Manifest) -> Holdout | None:
    if HOLDOUT not in manifest.digests:
        return None
    return Holdout.load(folder / HOLDOUT, len(manifest.schema_.features))


def _code(folder: Path, manifest: Manifest) -> FeatureCode:
    try:
        return load_features(folder / manifest.features_file, manifest.features_function)
    except PerennialError as error:
        raise ModelError(f"the model's feature code does not load: {error}", where=str(folder)) from error


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
