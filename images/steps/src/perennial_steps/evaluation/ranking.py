"""Metrics of rankers: one figure per list, and the mean over the lists.

A list in which nothing is relevant has no figure: no order of it is better than another. Tests compare with scikit-learn, list by list.
"""

from __future__ import annotations

import numpy as np

from perennial_steps.evaluation.metrics import Floats, Groups, group_ends

RANKING = ("ndcg", "map")


def mean_over_lists(metric: str, label: Floats, score: Floats, group: Groups) -> float:
    """A metric as `by_list` has it; NaN when no list has a relevant row."""
    return _mean(by_list(metric, label, score, group))


def by_list(metric: str, label: Floats, score: Floats, group: Groups) -> Floats:
    """float64[lists]: the metric of each list in the order of the lists; NaN where nothing is relevant.

    Args:
        metric: `ndcg`, the normalised discounted cumulative gain of the whole list, sum of (2^grade - 1) / log2(1 + place); or `map`,
            whose average over the lists is the mean average precision: every grade above 0 is relevant.
        label: float64[rows], the grades.
        score: float64[rows]; higher comes first.
        group: int64[rows].
    """
    if not len(label):
        return np.empty(0)
    lists = _Lists.of(label, score, group)
    return lists.ndcg() if metric == "ndcg" else lists.average_precision()


def curve(label: Floats, score: Floats, group: Groups, most: int) -> Floats:
    """float64[most]: mean NDCG of the first 1, 2, ... `most` places."""
    lists = _Lists.of(label, score, group)
    return np.array([_mean(lists.ndcg(depth)) for depth in range(1, most + 1)])


class _Lists:
    """Rows of all lists, each list in the order of its scores."""

    def __init__(self, label: Floats, score: Floats, group: Groups) -> None:
        self.label, self.score, self.group = label, score, group
        self.ends = group_ends(group)
        starts = np.concatenate([[0], self.ends[:-1] + 1])
        self.starts, self.sizes = starts, np.diff(np.append(starts, len(label)))
        self.place = np.arange(len(label)) - np.repeat(starts, self.sizes)

    @classmethod
    def of(cls, label: Floats, score: Floats, group: Groups) -> _Lists:
        order = np.lexsort((-score, group))
        return cls(label[order], score[order], group[order])

    def ndcg(self, depth: int | None = None) -> Floats:
        """float64[lists]; rows of equal score share their places (McSherry & Najork, 2008), so the order of the data cannot help."""
        discount = 1 / np.log2(self.place + 2.0)
        if depth is not None:
            discount[self.place >= depth] = 0.0
        gain = np.exp2(self.label) - 1
        ideal = gain[np.lexsort((-self.label, self.group))]
        best = np.add.reduceat(ideal * discount, self.starts)
        reached = np.add.reduceat(self._shared(gain) * discount, self.starts)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = np.where(best > 0, reached / best, np.nan)
        return found

    def average_precision(self) -> Floats:
        """float64[lists]; rows of equal score are taken all at once, as in the metric of classifiers."""
        relevant = (self.label > 0).astype(np.float64)
        hits = np.cumsum(relevant)
        before = np.concatenate([[0.0], hits])[self.starts]
        hits -= np.repeat(before, self.sizes)
        end = self._tie_ends()
        precision = hits[end] / (self.place[end] + 1)
        total = np.add.reduceat(relevant, self.starts)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = np.add.reduceat(relevant * precision, self.starts) / total
        return np.where(total > 0, found, np.nan)

    def _blocks(self) -> Groups:
        """Starts of the runs of equal score within a list."""
        new = (np.diff(self.group) != 0) | (np.diff(self.score) != 0)
        return np.concatenate([[0], np.flatnonzero(new) + 1])

    def _shared(self, values: Floats) -> Floats:
        """The mean of each run of equal score, in the place of its values."""
        blocks = self._blocks()
        sizes = np.diff(np.append(blocks, len(values)))
        found: Floats = np.repeat(np.add.reduceat(values, blocks) / sizes, sizes)
        return found

    def _tie_ends(self) -> Groups:
        """For each row the last row of its run."""
        stops = np.append(self._blocks()[1:], len(self.label))
        sizes = np.diff(np.concatenate([[0], stops]))
        return np.repeat(stops - 1, sizes)


def _mean(figures: Floats) -> float:
    known = figures[np.isfinite(figures)]
    return float(known.mean()) if len(known) else float("nan")
