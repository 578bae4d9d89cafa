"""Intervals and tests on paired seeds: t on log ratios, Holm, a margin of practical equality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
EQUAL_POINTS = 1.0
"""Slowdowns whose difference surely lies inside +- this many points are equal, however small the interval."""

GAP_POINTS = 1.0
"""Under this many points between first_touch and the oracle there is no gap to close a share of."""

_NO_VARIANCE = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean of paired log ratios with its t interval.

    Attributes:
        log: mean of the natural logarithms of the ratios.
        half: half of the interval on `log`; 0 when exact, `None` with fewer than two seeds.
        seeds: number of pairs.
        df: degrees of freedom of the t distribution.
    """

    log: float
    half: float | None
    seeds: int
    df: float

    @property
    def exact(self) -> bool:
        """Every seed gave the same ratio: there is no variance to speak of."""
        return self.half == 0.0

    @property
    def pct(self) -> float:
        """The ratio as per cent above 1 (a slowdown)."""
        return percent(self.log)

    @property
    def low_pct(self) -> float | None:
        """Lower end of the interval, per cent above 1."""
        return None if self.half is None else percent(self.log - self.half)

    @property
    def high_pct(self) -> float | None:
        """Upper end of the interval, per cent above 1."""
        return None if self.half is None else percent(self.log + self.half)

    @property
    def half_pct(self) -> float | None:
        """Half the width of the interval, in points."""
        return None if self.half is None else 100 * math.exp(self.log) * math.sinh(self.half)


def percent(log: float) -> float:
    """A log ratio as per cent above 1."""
    return 100 * math.expm1(log)


def log_ratios(times: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Logarithms of paired ratios, one a seed; both sequences in the same order of seeds."""
    return [math.log(time / base) for time, base in zip(times, reference, strict=True)]


def estimate(logs: Sequence[float]) -> Estimate:
    """Mean of one log ratio a seed, with the t interval of its seeds."""
    seeds, mean = len(logs), math.fsum(logs) / len(logs)
    if seeds < 2:
        return Estimate(mean, None, seeds, 0)
    deviation = _deviation(logs, mean)
    half = 0.0 if deviation <= _NO_VARIANCE else t_quantile(seeds - 1) * deviation / math.sqrt(seeds)
    return Estimate(mean, half, seeds, seeds - 1)


def overall(suite: Sequence[Sequence[float]]) -> Estimate:
    """Mean over the workloads of a fixed suite; the interval speaks of other seeds, not of other workloads.

    The variances of the workloads' means add; the degrees of freedom are Welch-Satterthwaite's, because workloads
    differ in noise and the noisiest decides. One inner sequence a workload, one log ratio a seed.
    """
    means = [math.fsum(logs) / len(logs) for logs in suite]
    mean, fewest = math.fsum(means) / len(means), min(len(logs) for logs in suite)
    if fewest < 2:
        return Estimate(mean, None, fewest, 0)
    variances = [_deviation(logs, m) ** 2 / len(logs) for logs, m in zip(suite, means, strict=True)]
    total = math.fsum(variances)
    if math.sqrt(total) <= _NO_VARIANCE:
        return Estimate(mean, 0.0, fewest, math.inf)
    df = total**2 / math.fsum(v**2 / (len(logs) - 1) for v, logs in zip(variances, suite, strict=True))
    return Estimate(mean, t_quantile(df) * math.sqrt(total) / len(suite), fewest, df)


def _deviation(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def t_quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """Half-width of a two-sided t interval in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + confidence / 2))


def p_value(logs: Sequence[float]) -> float | None:
    """Two-sided p of the paired t test that the mean log ratio is 0; `None` with fewer than two seeds."""
    from scipy.special import stdtr

    if len(logs) < 2:
        return None
    mean = math.fsum(logs) / len(logs)
    deviation = _deviation(logs, mean)
    if deviation <= _NO_VARIANCE:
        return 1.0 if abs(mean) <= _NO_VARIANCE else 0.0
    return float(2 * stdtr(len(logs) - 1, -abs(mean) / (deviation / math.sqrt(len(logs)))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: controls the chance of one false claim in the whole family."""
    order, adjusted, running = sorted(range(len(p_values)), key=p_values.__getitem__), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


@dataclass(frozen=True)
class Verdict:
    """Who is best on one workload, and whether that is sure.

    Attributes:
        best, next_best: labels; `next_best` is the lowest of the others.
        difference_pct: points of slowdown that the best saves against the next best, with the ends of its interval.
        p: Holm-adjusted over the policies compared with the best (`None`: too few seeds).
        word: `**` (p < .01), `*` (p < .05), `n.s.`, `equal`, `exact` (no variance), `too few seeds`, or `alone`.
        equal_to: the policies that cannot be told from the best by a point.
    """

    best: str
    next_best: str
    difference_pct: float | None
    low_pct: float | None
    high_pct: float | None
    p: float | None
    word: str
    equal_to: tuple[str, ...] = ()


def verdict(logs: Mapping[str, Sequence[float]]) -> Verdict:
    """Compare the best of some policies with each of the others.

    Args:
        logs: for each policy its log ratios against the common reference, one a seed, seeds in the same order.
    """
    means = {name: math.fsum(values) / len(values) for name, values in logs.items()}
    best, *others = sorted(means, key=lambda name: (means[name], name))
    if not others:
        return Verdict(best, "", None, None, None, None, "alone")
    pairs = {name: [a - b for a, b in zip(logs[name], logs[best], strict=True)] for name in others}
    points = {name: _points(estimate(pair), means[best]) for name, pair in pairs.items()}
    middle, low, high = points[others[0]]
    equal = tuple(name for name in others if _inside_margin(points[name]))
    raw = [p_value(pairs[name]) for name in others]
    if any(p is None for p in raw):
        return Verdict(best, others[0], middle, low, high, None, "too few seeds")
    p = holm([p for p in raw if p is not None])[0]
    word = _word(p, bool(equal), exact=low == high)
    return Verdict(best, others[0], middle, low, high, p, word, equal)


def _points(pair: Estimate, best_log: float) -> tuple[float, float | None, float | None]:
    """Difference of two slowdowns in points, and the ends of its interval, from the log ratio of their times."""
    scale = math.exp(best_log)
    ends = [None if end is None else scale * end for end in (pair.low_pct, pair.high_pct)]
    return scale * pair.pct, ends[0], ends[1]


def _inside_margin(points: tuple[float, float | None, float | None]) -> bool:
    _, low, high = points
    return low is not None and high is not None and low >= -EQUAL_POINTS and high <= EQUAL_POINTS


def _word(p: float, equal: bool, exact: bool) -> str:
    if equal:
        return "equal"
    if exact:
        return "exact"
    return "**" if p < 0.01 else "*" if p < 0.05 else "n.s."


def gap_closed(first_touch: float, policy: float, oracle: float) -> float | None:
    """Share (1.0: all of it) of the gap between first_touch and the oracle that a policy closed.

    `None` where the gap is under a point. All arguments are slowdowns in per cent.
    """
    gap = first_touch - oracle
    return None if gap < GAP_POINTS else (first_touch - policy) / gap


def median_worst(shares: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Median and lowest of the shares that exist."""
    known = sorted(share for share in shares if share is not None)
    if not known:
        return None, None
    middle = len(known) // 2
    median = known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
    return median, known[0]
