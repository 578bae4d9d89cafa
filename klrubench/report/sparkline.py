"""A row of characters that shows how a value went over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from klrubench.report.text import missing

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"


def sparkline(
    values: Sequence[float | None],
    width: int = 60,
    *,
    low: float | None = None,
    high: float | None = None,
    ascii_only: bool = False,
) -> str:
    """Draw `values` in at most `width` characters, means of equal stretches.

    Args:
        values: the series; None (or not-a-number) is a blank.
        width: most characters.
        low: value of the lowest character (default: 0, or the least value if that is below).
        high: value of the highest character (default: the greatest).
        ascii_only: draw with 7-bit characters.
    """
    means = resampled(values, width)
    known = [value for value in means if value is not None]
    if not known:
        return " " * len(means)
    bottom = min(0.0, *known) if low is None else low
    top = max(known) if high is None else high
    levels = ASCII if ascii_only else BLOCKS
    return "".join(_level(value, bottom, top, levels) for value in means)


def _level(value: float | None, bottom: float, top: float, levels: str) -> str:
    if value is None:
        return " "
    if top <= bottom:
        return levels[0]
    part = (value - bottom) / (top - bottom)
    return levels[min(len(levels) - 1, max(0, int(part * len(levels))))]


def resampled(values: Sequence[float | None], width: int) -> list[float | None]:
    """`values` itself if short enough, else the means of `width` stretches as equal as they go."""
    if len(values) <= width:
        return [None if missing(value) else value for value in values]
    edges = [round(step * len(values) / width) for step in range(width + 1)]
    return [_mean(values[first:last]) for first, last in pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not missing(value)]
    return sum(known) / len(known) if known else None


def rates(times_s: Sequence[float], totals: Sequence[float]) -> list[float | None]:
    """What a cumulative counter grew by a second, for each stretch of `times_s` (one value fewer)."""
    steps = zip(times_s, times_s[1:], totals, totals[1:], strict=False)
    return [(after - before) / (end - start) if end > start else None for start, end, before, after in steps]


def ratios(parts: Sequence[float], totals: Sequence[float]) -> list[float | None]:
    """Share of one cumulative counter's growth in another's, stretch by stretch."""
    steps = zip(parts, parts[1:], totals, totals[1:], strict=False)
    return [(part - was) / (total - before) if total > before else None for was, part, before, total in steps]
