"""Count, mean and central moments of values, which two parts of them can be merged from. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moments:
    """Of values of one kind, as of the entities that one version answers."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared deviations from the mean."""
    cubes: float = 0.0
    """Sum of the cubed ones."""

    @property
    def variance(self) -> float:
        """Unbiased; 0 of fewer than two values."""
        return self.squares / (self.n - 1) if self.n > 1 else 0.0

    def __add__(self, other: Moments) -> Moments:
        """Of both together: Pébay, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical
        moments" (2008), eqs. 2.1 and 2.2."""
        n = self.n + other.n
        if not n:
            return self
        apart = other.mean - self.mean
        return Moments(
            n,
            self.mean + apart * other.n / n,
            self.squares + other.squares + apart**2 * self.n * other.n / n,
            self.cubes
            + other.cubes
            + apart**3 * self.n * other.n * (self.n - other.n) / n**2
            + 3 * apart * (self.n * other.squares - other.n * self.squares) / n,
        )
