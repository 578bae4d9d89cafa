"""Differences over a fixed suite, Holm-adjusted within a family, and whether tuning changes who is ahead of whom."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from klrubench.study.statistics import EQUAL_POINTS, Estimate, holm, overall, percent, t_quantile

Suite = Mapping[str, Sequence[float]]
"""By workload: log ratios to all_top, one a seed, seeds in the same order."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """How much more slowdown one has than the other, seeds paired.

    Attributes:
        points: of slowdown (%), with the ends of the 95 % interval (None with one seed).
        p: Holm-adjusted over its family; None with one seed.
        word: `**` (p < .01), `*` (p < .05), `n.s.`, `equal` (surely within +-1 point), `exact` (no variance), `1 seed`,
            or `same` (no parameter differs).
    """

    points: float
    low: float | None
    high: float | None
    p: float | None
    word: str

    @property
    def sign(self) -> int:
        """-1 surely less, 1 surely more, 0 not to be told."""
        return 0 if self.word not in ("*", "**", "exact") else -1 if self.points < 0 else 1


def differences(family: Mapping[Key, tuple[Suite, Suite]]) -> dict[Key, Difference]:
    """`own - other` of every member, the p-values adjusted over all of them.

    Args:
        family: by any key, two suites of the same workloads and seeds.
    """
    found = {key: overall(_paired(own, other)) for key, (own, other) in family.items()}
    raw = {key: p for key, each in found.items() if (p := p_of(each)) is not None}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return {key: _difference(found[key], family[key][1], adjusted.get(key)) for key in family}


def _paired(own: Suite, other: Suite) -> list[list[float]]:
    return [[a - b for a, b in zip(own[label], other[label], strict=True)] for label in own]


def p_of(found: Estimate) -> float | None:
    """Two-sided p that the mean is 0, from the interval's own degrees of freedom; None with one seed."""
    from scipy.special import stdtr

    if found.half is None:
        return None
    if found.half == 0.0:
        return 0.0 if abs(found.log) > 1e-12 else 1.0
    return float(2 * stdtr(found.df, -abs(found.log) / (found.half / t_quantile(found.df))))


def _difference(found: Estimate, other: Suite, p: float | None) -> Difference:
    scale = math.exp(overall(list(other.values())).log)
    if found.half is None:
        return Difference(scale * found.pct, None, None, None, "1 seed")
    low, high = (scale * percent(found.log + end) for end in (-found.half, found.half))
    return Difference(scale * found.pct, low, high, p, _word(low, high, p, found.exact))


def _word(low: float, high: float, p: float | None, exact: bool) -> str:
    if low >= -EQUAL_POINTS and high <= EQUAL_POINTS:
        return "equal"
    if exact:
        return "exact"
    return "n.s." if p is None or p >= 0.05 else "**" if p < 0.01 else "*"


@dataclass(frozen=True)
class Pair:
    """Two policies with their defaults, and once both are tuned; each difference is first - second."""

    first: str
    second: str
    default: Difference
    tuned: Difference

    @property
    def change(self) -> str:
        """`reversed` (sure both times), `parted` (sure only once tuned), `joined` (sure only before), or empty."""
        before, after = self.default.sign, self.tuned.sign
        if before == after:
            return ""
        return "reversed" if before * after < 0 else "parted" if before == 0 else "joined"


@dataclass(frozen=True)
class Order:
    """Who is ahead of whom.

    Attributes:
        default, tuned: labels, least slowdown first.
        pairs: each two policies; one Holm family of both differences of every pair.
    """

    default: tuple[str, ...]
    tuned: tuple[str, ...]
    pairs: tuple[Pair, ...]

    def between(self, first: str, second: str, tuned: bool) -> Difference:
        """The difference of two neighbours, whichever way round the pair is kept (its word and size count)."""
        pair = next(each for each in self.pairs if {each.first, each.second} == {first, second})
        return pair.tuned if tuned else pair.default


def order(default: Mapping[str, Suite], tuned: Mapping[str, Suite]) -> Order:
    """The order of the same policies with their defaults and once tuned (an untunable one is the same in both)."""
    names = list(combinations(default, 2))
    stages = {"default": default, "tuned": tuned}
    family = {(word, a, b): (suites[a], suites[b]) for word, suites in stages.items() for a, b in names}
    found = differences(family)
    pairs = tuple(Pair(a, b, found["default", a, b], found["tuned", a, b]) for a, b in names)
    return Order(_sorted(default), _sorted(tuned), pairs)


def _sorted(suites: Mapping[str, Suite]) -> tuple[str, ...]:
    means = {label: overall(list(suite.values())).log for label, suite in suites.items()}
    return tuple(sorted(means, key=lambda label: (means[label], label)))
