"""How often an experiment is wrong when it is looked at all the time, and how long it takes to be right.

    python -m bench.experiments

Simulated experiments of 20,000 entities that come one by one, looked at after each 100 of them, as the step `experiment` judges them;
beside the common z-test of the same figures at the same looks, and beside one that is made once, with the number of entities that it
needs. Then bandits, which are looked at after each 200 rows, and what half and half would have cost. Seeded: the figures are the same on
every machine. Prints tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from perennial_spec.route import RateArm
from perennial_steps.experiments.arms import Rewards, chance_of_first, learned
from perennial_steps.experiments.moments import Moments
from perennial_steps.experiments.sequence import Effect, effect

Floats = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[np.random.Generator], Floats]

EXPERIMENTS, ENTITIES, EVERY, LEAST, PLANNED = 2_000, 20_000, 100, 100, 10_000
BANDITS, ROWS, CHAMPION, CONFIDENCE = 500, 200, 0.10, 0.95
Z_TWO_SIDED, Z_POWER = 1.96, 0.8416
REWARDS: dict[str, Draw] = {
    "normal": lambda rng: rng.normal(0, 1, ENTITIES),
    "2% are 1": lambda rng: (rng.random(ENTITIES) < 0.02).astype(np.float64),
    "log-normal, sigma 1.5": lambda rng: rng.lognormal(0, 1.5, ENTITIES),
}


@dataclass(frozen=True)
class Ends:
    """Of many experiments: the entities at which each stopped, and whether it took the challenger for the better version."""

    stops: list[tuple[int, bool]]

    @property
    def share(self) -> float:
        return len(self.stops) / EXPERIMENTS

    @property
    def after(self) -> float:
        return median(n for n, _ in self.stops)


def main() -> None:
    """Print what was found."""
    print(f"{EXPERIMENTS} experiments each, {ENTITIES // EVERY} looks, alpha 5%.\n")
    print("| rewards | challenger's share | perennial: stopped without a difference | z-test at each look |")
    print("| --- | --- | --- | --- |")
    for name, draw in REWARDS.items():
        for share in (0.5, 0.1):
            ours, theirs = simulate(draw, share, 0.0)
            print(f"| {name} | {share:.0%} | {ours.share:.1%} | {theirs.share:.0%} |", flush=True)
    print(
        "\n| gain, in standard deviations | found | with the wrong sign | entities, median | z-test made once, 80% power |"
    )
    print("| --- | --- | --- | --- | --- |")
    for gain in (0.05, 0.1, 0.2, 0.4):
        ours, _ = simulate(REWARDS["normal"], 0.5, gain)
        wrong = sum(not better for _, better in ours.stops)
        once = 4 * (Z_TWO_SIDED + Z_POWER) ** 2 / gain**2
        print(f"| {gain} | {ours.share:.1%} | {wrong} | {ours.after:,.0f} | {once:,.0f} |", flush=True)
    print(f"\n{BANDITS} bandits each, at most {ENTITIES:,} rows, the champion's rate 10%, confidence 95%.\n")
    print(
        "| challenger's rate | it wins | the champion wins | rows, median | answered by the worse | the same of half and half |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for rate in (0.10, 0.11, 0.12, 0.15, 0.08):
        print(bandits(rate), flush=True)


def bandits(rate: float) -> str:
    """A row of the table."""
    rng = np.random.default_rng(2026)
    won, lost, rows, worse = 0, 0, list[int](), list[float]()
    for _ in range(BANDITS):
        chance, asked = bandit(rng, rate)
        won += chance >= CONFIDENCE
        lost += chance <= 1 - CONFIDENCE
        rows.append(sum(asked))
        worse.append(asked[0 if rate < CHAMPION else 1] / sum(asked))
    same = rate == CHAMPION
    bad = "-" if same else f"{np.mean(worse):.0%}"
    return f"| {rate:.0%} | {won / BANDITS:.1%} | {lost / BANDITS:.1%} | {median(rows):,.0f} | {bad} | {'-' if same else '50%'} |"


def bandit(rng: np.random.Generator, rate: float) -> tuple[float, tuple[int, int]]:
    """The chance that the challenger is the better one when it ends, and the rows that challenger and champion answered."""
    won, asked = [0, 0], [0, 0]
    arms, chance = (RateArm(), RateArm()), 0.5
    while sum(asked) < ENTITIES:
        draws = [rng.beta(1 + arm.successes, 1 + arm.failures, ROWS) for arm in arms]
        ours = int((draws[0] > draws[1]).sum())
        for place, (count, true) in enumerate(((ours, rate), (ROWS - ours, CHAMPION))):
            asked[place] += count
            won[place] += int(rng.binomial(count, true))
        known = [
            Moments(n, good / max(n, 1), good * (n - good) / max(n, 1)) for good, n in zip(won, asked, strict=True)
        ]
        found = learned(Rewards(known[0], known[1]))
        assert found is not None
        arms, chance = found, chance_of_first(found)  # type: ignore[assignment]
        if min(asked) >= LEAST and not 1 - CONFIDENCE < chance < CONFIDENCE:
            break
    return chance, (asked[0], asked[1])


def simulate(draw: Draw, share: float, gain: float) -> tuple[Ends, Ends]:
    """Where experiments stop: as the step judges them, and by the z-test at each look."""
    rng = np.random.default_rng(2026)
    ours, theirs = Ends([]), Ends([])
    for _ in range(EXPERIMENTS):
        sequence, test = _first_stops(looks(rng, draw, share, gain))
        ours.stops.extend(sequence)
        theirs.stops.extend(test)
    return ours, theirs


Stop = list[tuple[int, bool]]
Looked = tuple[int, Effect, float]


def _first_stops(found: Iterator[Looked]) -> tuple[Stop, Stop]:
    sequence: Stop = []
    test: Stop = []
    for n, at, z in found:
        if not sequence and at.is_usable and not at.low <= 0 <= at.high:
            sequence.append((n, at.value > 0))
        if not test and abs(z) > Z_TWO_SIDED:
            test.append((n, z > 0))
        if sequence and test:
            break
    return sequence, test


def looks(rng: np.random.Generator, draw: Draw, share: float, gain: float) -> Iterator[Looked]:
    """Entities so far, the effect, and the z of the common test, at each look of one experiment."""
    mine = rng.random(ENTITIES) < share
    values = draw(rng) + gain * mine
    ours, theirs = Moments(), Moments()
    for start in range(0, ENTITIES, EVERY):
        part, dealt = values[start : start + EVERY], mine[start : start + EVERY]
        ours += moments(part[dealt])
        theirs += moments(part[~dealt])
        if min(ours.n, theirs.n) < LEAST:
            continue
        found = effect(ours, theirs, 0.95, PLANNED)
        if found:
            error = math.sqrt(ours.variance / ours.n + theirs.variance / theirs.n)
            yield start + EVERY, found, found.value / error if error else 0.0


def moments(values: Floats) -> Moments:
    """Of some values."""
    if not len(values):
        return Moments()
    mean = float(values.mean())
    apart = values - mean
    return Moments(len(values), mean, float(apart @ apart), float((apart**2) @ apart))


if __name__ == "__main__":
    main()
