"""In which order parts start and stop. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from perennial_cli.embedded.part import Part
from perennial_spec.errors import PlatformError, nearest


def levels(parts: Sequence[Part]) -> list[list[str]]:
    """Names in waves: each wave needs only the waves before it. Reversed, it is the order of stopping.

    Raises:
        PlatformError: a name occurs twice, a need is not a part, or needs go round in a circle.
    """
    names = [part.name for part in parts]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise PlatformError(f"two parts are named {twice[0]!r}", expected="one name per part")
    for part in parts:
        _check_needs(part, names)
    sorter = TopologicalSorter({part.name: part.needs for part in parts})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise PlatformError(f"parts need each other in a circle: {circle}", expected="needs without a circle") from None
    waves: list[list[str]] = []
    while sorter.is_active():
        wave = sorted(sorter.get_ready(), key=names.index)
        waves.append(wave)
        sorter.done(*wave)
    return waves


def without(parts: Iterable[Part], left_out: Iterable[str]) -> tuple[Part, ...]:
    """The parts without some; those that need a part that is left out start without it.

    Raises:
        PlatformError: a name is not a part.
    """
    parts = tuple(parts)
    out = frozenset(left_out)
    names = [part.name for part in parts]
    for name in sorted(out - set(names)):
        guess = nearest(name, names)
        raise PlatformError(
            f"there is no part named {name!r}",
            where="--without",
            expected=f"one of {', '.join(names)}",
            next=f"did you mean {guess!r}?" if guess else "",
        )
    return tuple(_needing(part, out) for part in parts if part.name not in out)


def _needing(part: Part, left_out: frozenset[str]) -> Part:
    return replace(part, needs=tuple(need for need in part.needs if need not in left_out))


def _check_needs(part: Part, names: Sequence[str]) -> None:
    for need in part.needs:
        if need not in names:
            guess = nearest(need, names)
            raise PlatformError(
                f"part {part.name!r} needs {need!r}, which is not a part",
                expected=f"one of {', '.join(names)}",
                next=f"did you mean {guess!r}?" if guess else "",
            )
