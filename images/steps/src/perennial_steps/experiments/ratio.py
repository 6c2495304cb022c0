"""Sample ratio mismatch: do the versions have as many entities as their shares say? Pure.

If not, something takes entities away from one of them - failed requests, a log that drops rows, a client that keeps its own versions - and
what is left cannot be compared (Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019).
"""

from __future__ import annotations

import math

ALPHA = 0.001
"""How seldom a healthy experiment is held, at all looks together: it is held without need until somebody has looked."""
CONCENTRATION = 1000.0
"""Of the prior around the expected share: a standard deviation of 1.6 points around 50%."""


def mismatch(challenger: int, champion: int, share: float) -> float:
    """The p-value of the counts under the challenger's `share`, valid at every look.

    The chi-squared test holds for one look alone. This is its sequential counterpart: 1 / the Bayes factor of a share that is drawn from a
    Beta around the expected one (Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, eq. 7).
    """
    prior = (CONCENTRATION * share, CONCENTRATION * (1 - share))
    apart = _log_beta(prior[0] + challenger, prior[1] + champion) - _log_beta(*prior)
    expected = challenger * math.log(share) + champion * math.log(1 - share)
    return min(1.0, math.exp(min(0.0, expected - apart)))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
