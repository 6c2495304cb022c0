"""A random sample of the rows that a version has answered, of bounded size and nearly free.

Which row comes next is drawn beforehand (Li, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))", 1994): a turn of the
event loop compares two numbers, and copies a row where it holds one that was drawn.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from perennial_serving.scorer import Matrix


class Sample:
    """At most `size` of the rows that were offered since the last `take`, each with the same probability. One thread's.

    Args:
        size: at least 1.
        width: features of a row.
    """

    def __init__(self, size: int, width: int) -> None:
        self._random = random.Random()  # noqa: S311 (nothing secret)
        self._rows: Matrix = np.empty((size, width), dtype=np.float32)
        self._seen, self._next, self._filled, self._weight = 0, 0, 0, 1.0

    def offer(self, matrix: Matrix) -> None:
        """Rows that were answered, float32[rows, width]; they are copied where they are taken."""
        first, self._seen = self._seen, self._seen + len(matrix)
        while self._next < self._seen:
            self._keep(matrix[self._next - first :])

    def take(self) -> Matrix:
        """The sample, float32[up to `size`, width]; the next one begins."""
        found: Matrix = self._rows[: self._filled].copy()
        self._seen, self._next, self._filled, self._weight = 0, 0, 0, 1.0
        return found

    def _keep(self, rows: Matrix) -> None:
        """Take the first of these rows, or as many as there is still room for, and draw which comes next."""
        size, filled = len(self._rows), self._filled
        if filled < size:
            count = min(size - filled, len(rows))
            self._rows[filled : filled + count] = rows[:count]
            self._filled += count
        else:
            count = 1
            self._rows[self._random.randrange(size)] = rows[0]
        self._next += count
        if self._filled == size:
            self._weight = min(self._weight * math.exp(math.log(self._uniform()) / size), 1 - 2**-53)
            # log1p: after many rows the weight is too small for 1 - weight.
            self._next += int(math.log(self._uniform()) / math.log1p(-self._weight))

    def _uniform(self) -> float:
        """Above 0, up to 1 and not 1 itself."""
        return self._random.random() or 0.5
