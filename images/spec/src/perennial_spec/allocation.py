"""Who owns which part of [0, 1): pieces, and the smallest change of them that gives every version its new share.

Places are whole numbers of 2**-53. Every such place is a float exactly, so that pieces survive JSON unchanged, and sums of them are
exact: after any chain of changes each version owns its share to the last bit, and nothing drifts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

WHOLE = 2**53
MAX_PIECES = 500
"""More are laid out anew by the next change, which then moves more than it must. Chains of thousands of random changes among 12 versions
stayed below 100."""
Pieces = tuple[tuple[str, float], ...]
"""`(version, upper bound)` in order: the version owns everything below the bound that no piece before it owns. The last bound is 1."""


@dataclass
class _Piece:
    owner: str
    size: int


def in_order(weights: Mapping[str, float]) -> Pieces:
    """One piece per version that has a weight, in the order of `weights`."""
    bounds, total = [], 0.0
    for version, weight in weights.items():
        if weight > 0:
            total += weight
            bounds.append((version, _place(total) / WHOLE))
    if bounds:
        bounds[-1] = (bounds[-1][0], 1.0)  # sums of floats must not leave a gap below 1
    return tuple(bounds)


def shares(pieces: Pieces) -> dict[str, float]:
    """What each version owns, in the order in which it first appears."""
    found: dict[str, float] = {}
    below = 0.0
    for version, bound in pieces:
        found[version] = found.get(version, 0.0) + bound - below
        below = bound
    return found


def moved(pieces: Pieces, weights: Mapping[str, float]) -> Pieces:
    """`pieces` cut anew so that each version owns its weight.

    A version that shrinks only gives and one that grows only takes, so that what moves is half the sum of the differences: no cut can
    move less. A boundary between a giver and a taker is shifted where there is one; only where there is none, a piece is added.
    """
    line = _line(pieces)
    if not line or len(line) > MAX_PIECES:
        return in_order(weights)
    wanted = {piece.owner: piece.size for piece in _line(in_order(weights))}
    owned: dict[str, int] = {}
    for piece in line:
        owned[piece.owner] = owned.get(piece.owner, 0) + piece.size
    surplus = {v: size - wanted.get(v, 0) for v, size in owned.items() if size > wanted.get(v, 0)}
    need = {v: size - owned.get(v, 0) for v, size in wanted.items() if size > owned.get(v, 0)}
    places = {version: place for place, version in enumerate(weights)}
    _shift(line, surplus, need)
    while need:
        giver, taker = max(surplus, key=surplus.__getitem__), max(need, key=need.__getitem__)
        _insert(line, giver, taker, min(surplus[giver], need[taker]), places)
        _shift(line, surplus, need)
    return _pieces(line)


def _shift(line: list[_Piece], surplus: dict[str, int], need: dict[str, int]) -> None:
    """Move every boundary between a giver and a taker as far as both need it."""
    place = 0
    while place + 1 < len(line):
        left, right = line[place], line[place + 1]
        given = _give(left, right, surplus, need) or _give(right, left, surplus, need)
        if given and (not left.size or not right.size):
            _tidy(line)
            place = max(place - 2, 0)  # a piece is gone: its neighbours may have met theirs
        else:
            place += 1


def _give(giver: _Piece, taker: _Piece, surplus: dict[str, int], need: dict[str, int]) -> int:
    amount = min(giver.size, surplus.get(giver.owner, 0), need.get(taker.owner, 0))
    if amount:
        giver.size -= amount
        taker.size += amount
        for left, version in ((surplus, giver.owner), (need, taker.owner)):
            left[version] -= amount
            if not left[version]:
                del left[version]
    return amount


def _insert(line: list[_Piece], giver: str, taker: str, amount: int, places: Mapping[str, int]) -> None:
    """An empty piece of the taker at an edge of the giver's, for `_shift` to fill.

    Best at an end of the line, the upper one for a version that comes later in the weights: then a challenger grows from the top, as in a
    route that was written by hand. Else beside the giver's smallest piece that has enough, so that large pieces stay whole.
    """
    later = places.get(taker, 0) > places.get(giver, -1)
    ends = [(len(line) - 1, len(line)), (0, 0)]
    for place, at in ends if later else reversed(ends):
        if line[place].owner == giver:
            line.insert(at, _Piece(taker, 0))
            return
    mine = [place for place, piece in enumerate(line) if piece.owner == giver]
    enough = [place for place in mine if line[place].size >= amount]
    place = min(enough, key=lambda at: line[at].size) if enough else max(mine, key=lambda at: line[at].size)
    line.insert(place + later, _Piece(taker, 0))


def _tidy(line: list[_Piece]) -> None:
    """Without empty pieces, and neighbours of one owner as one."""
    kept: list[_Piece] = []
    for piece in line:
        if kept and kept[-1].owner == piece.owner:
            kept[-1].size += piece.size
        elif piece.size:
            kept.append(piece)
    line[:] = kept


def _place(bound: float) -> int:
    """The place of a bound. Points of keys are places too, so that rounding up puts none of them on the other side."""
    return math.ceil(min(bound, 1.0) * WHOLE)


def _line(pieces: Pieces) -> list[_Piece]:
    line, below = [], 0
    for version, bound in pieces:
        place = _place(bound)
        line.append(_Piece(version, place - below))
        below = place
    _tidy(line)
    return line


def _pieces(line: list[_Piece]) -> Pieces:
    _tidy(line)
    pieces, total = [], 0
    for piece in line:
        total += piece.size
        pieces.append((piece.owner, total / WHOLE))
    return tuple(pieces)
