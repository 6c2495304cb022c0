"""How long a watch waits between two looks. Pure; seconds in, seconds out.

A disaster shows in the first minute, so that the looks begin close together and grow further apart with the time that has passed. Looks
that are seconds apart are made by one process (`runner.SHORT_WAIT`), others each by a process or a pod of its own, which should do more
than start: they are at least a minute apart.
"""

from __future__ import annotations

from perennial_steps.runner import SHORT_WAIT

SHORTEST, LONGEST = 0.5, 300.0
"""Seconds between two looks, whatever is watched."""
LONE = 60.0
"""Seconds between two looks that are processes of their own."""
LOOKS = 20
"""How often at least the figures are looked at within the time that is watched, if `LONGEST` does not make it more."""


def until_next(elapsed: float, bake: float, longest: float) -> float:
    """Seconds until the next look; never beyond the moments at which the watch is judged.

    Args:
        elapsed: since the watch began.
        bake: when it is judged.
        longest: when it is judged for good, at least `bake`.
    """
    end = bake if elapsed < bake else longest
    wait = min(elapsed / 5, max(bake, elapsed) / LOOKS, LONGEST)
    return max(min(_lone(wait), end - elapsed), SHORTEST)


def until_asked_again(held: float) -> float:
    """Seconds until the next look of a watch that has had no figures for `held` seconds."""
    return max(_lone(min(held / 4, LONGEST)), SHORTEST)


def _lone(wait: float) -> float:
    return wait if wait < SHORT_WAIT else max(wait, LONE)
