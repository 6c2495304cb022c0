"""The limit of chance by simulation: how often windows in which nothing has moved exceed it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

DRAWS, REFERENCE = 200_000, 50_000
SHARES = {
    "deciles": np.array([*[0.1] * 10, 0.0]),
    "a few rare categories": np.array([0.75, *[0.025] * 10, 0.0]),
    "ever rarer categories": np.array([*(1 / np.arange(1, 33) / np.sum(1 / np.arange(1, 33)) * 0.98), 0.02, 0.0]),
    "two values, two bins that are never seen": np.array([0.78, 0.22, 0.0, 0.0]),
}


def simulated(shares, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Evidence, and PSI / (1/n + 1/m), of windows without drift; each tenth of them with a reference of its own."""
    rng = np.random.default_rng(rows)
    evidence, psi = [], []
    for _ in range(10):
        reference = (rng.multinomial(REFERENCE, shares) + 0.5) / (REFERENCE + 0.5 * len(shares))
        seen = rng.multinomial(rows, shares, size=DRAWS // 10)
        logs = np.log(np.maximum(seen, 1) / (rows * reference))
        evidence.append(2 * (seen * logs).sum(axis=1) / (1 + rows / REFERENCE))
        live = (seen + 0.5) / (rows + 0.5 * len(shares))
        psi.append(((live - reference) * np.log(live / reference)).sum(axis=1) / (1 / rows + 1 / REFERENCE))
    return np.concatenate(evidence), np.concatenate(psi)


@pytest.mark.parametrize("rows", [200, 1_000, 10_000])
@pytest.mark.parametrize("shape", SHARES)
def test_evidence_exceeds_its_quantile_at_most_twice_as_often_as_it_should(shape: str, rows: int) -> None:
    shares = SHARES[shape]
    evidence, _ = simulated(shares, rows)
    for chance in (1e-2, 1e-3, 1e-4):
        assert np.mean(evidence > chi2.isf(chance, len(shares) - 1)) <= 2 * chance + 3 * np.sqrt(chance / DRAWS)


def test_psi_itself_has_a_heavier_tail_than_the_quantile_allows_for() -> None:
    shares = SHARES["a few rare categories"]
    evidence, psi = simulated(shares, 500)
    limit = chi2.isf(1e-3, len(shares) - 1)
    assert np.mean(psi > limit) > 1.4e-3
    assert np.mean(evidence > limit) < 1e-3
