"""Typed columns to scores: feature code, matrix, model, and the bins that the values fall into."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from perennial_features.bundle import Bundle, Scores
from perennial_features.code import Array
from perennial_features.reference import Counts, Reference
from perennial_native._rows import UNSEEN_BITS, Assembler, Bins
from perennial_serving.sample import Sample

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Scorer:
    """Answers rows as `bundle.score` would, in a fraction of the time; safe to call from several threads."""

    def __init__(self, bundle: Bundle, sample: Sample | None = None) -> None:
        self._bundle = bundle
        self.sample = sample
        """Of what was counted; None where nobody looks at it."""
        self._features = bundle.code.call
        self._width = len(bundle.schema.features)
        self._assembler = Assembler(
            tuple((f.name, f.codes if f.kind == "categorical" else None) for f in bundle.schema.features)
        )
        self._bins = bins_of(bundle.reference)

    def matrix(self, columns: Mapping[str, Array], rows: int) -> Matrix:
        """What the model sees, float32[rows, features].

        Args:
            columns: the model's inputs, read-only, in a mapping that cannot be changed.

        Raises:
            FeatureError: the feature code raises, or does not keep its contract.
        """
        found: Matrix = np.empty((rows, self._width), dtype=np.float32)
        try:
            with np.errstate(all="ignore"):
                features = self._features(columns)
            if self._assembler.assemble(features, rows, found):
                return found
        except Exception:
            return self._explained(columns)  # raises what says where and why
        return self._explained(columns)

    def predict(self, matrix: Matrix) -> Scores:
        """float64[rows], or float64[rows, outputs]."""
        return self._bundle.predict_encoded(matrix)

    def count(self, matrix: Matrix, scores: Scores, counters: Counts) -> None:
        """Add these rows to `VersionCounters.values`. Of several outputs the first is binned, as it is logged.

        Offers them to the sample as well; on the event loop only.
        """
        if self.sample is not None:
            self.sample.offer(matrix)
        if scores.ndim > 1:
            scores = np.ascontiguousarray(scores[:, 0])
        self._bins.count(matrix, scores, counters)

    def _explained(self, columns: Mapping[str, Array]) -> Matrix:
        """The longer way: every promise of the feature code is checked, and what can be converted is."""
        encoded = self._bundle.encode(columns)
        for place, mask in encoded.unseen.items():
            encoded.matrix.view(np.uint32)[mask, place] = UNSEEN_BITS
        return encoded.matrix


def bins_of(reference: Reference) -> Bins:
    """The counter of a reference."""
    return Bins(
        tuple(
            (
                each.edges if each.kind == "numeric" else None,
                len(each.counts),
                None if each.low is None or each.high is None else (each.low, each.high),
            )
            for each in reference.features
        )
    )


def read_only(columns: Mapping[str, Array]) -> Mapping[str, Array]:
    """Columns as feature code may see them."""
    views = {name: values.view() for name, values in columns.items()}
    for view in views.values():
        view.flags.writeable = False
    return MappingProxyType(views)
