"""A page-by-time picture in characters, and as an image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import UsageError
from klrubench.report.text import significant

if TYPE_CHECKING:
    from klrubench.study.heatmap import Heat

BLOCKS = " ░▒▓█"
DIGITS = "0123456789"


def heatmap_text(heat: Heat, width: int, ascii_only: bool = False, lower: str = "CXL", top: str = "DRAM") -> str:
    """Two pictures, time to the right: touches a page and second (logarithmic), and the share of pages on the top tier.

    Args:
        heat: the run's picture.
        width: columns of text a line may have.
        ascii_only: digits 0 to 9 instead of blocks.
        lower, top: names of the tiers.
    """
    shades = DIGITS if ascii_only else BLOCKS
    label = max(len(text) for text in heat.labels)
    room = max(10, width - label - 2)
    rate, in_top = (_narrowed(part, room) for part in (heat.rate, heat.in_top))
    least, most = _limits(heat.rate)
    what = "GiB" if heat.order == "address" else "pages from most to least touched"
    end = f"{heat.ends_s[-1]:.0f} s"
    lines = [f"touches a page and second, {_key(shades, _steps(least, most, len(shades)))}"]
    lines += _rows(heat.labels, label, [[_log_shade(v, least, most, len(shades)) for v in row] for row in rate], shades)
    lines += [_axis(label, len(rate[0]), end), ""]
    steps = [f"{100 * k // len(shades)} %" for k in range(len(shades))]
    lines += [f"share of pages in {top} (the others: {lower}), {_key(shades, steps)}"]
    lines += _rows(
        heat.labels, label, [[min(len(shades) - 1, int(v * len(shades))) for v in row] for row in in_top], shades
    )
    lines += [_axis(label, len(in_top[0]), end), f"rows: {what}; columns: virtual time"]
    return "\n".join(lines)


def _limits(rate: Any) -> tuple[float, float]:
    """Scale of the touches: two decades below the greatest, or from the least above 0."""
    most = float(rate.max())
    known = rate[rate > 0]
    least = float(known.min()) if known.size else most
    return max(least, most / 100), most


def _steps(least: float, most: float, n: int) -> list[str]:
    """The least rate of each shade; the first one is below the scale."""
    if most <= least:
        return ["0"] * (n - 1) + [significant(most)]
    return ["0", *(significant(least * (most / least) ** (k / (n - 1))) for k in range(n - 1))]


def _log_shade(value: float, least: float, most: float, n: int) -> int:
    import math

    if value <= 0 or value < least:
        return 0
    if most <= least:
        return n - 1
    return 1 + min(n - 2, int((n - 1) * math.log(value / least) / math.log(most / least)))


def _narrowed(part: Any, room: int) -> list[list[float]]:
    """At most `room` columns: means of neighbours."""
    columns = part.shape[1]
    n = min(room, columns)
    edges = [k * columns // n for k in range(n + 1)]
    return [[float(row[a:b].mean()) for a, b in itertools.pairwise(edges)] for row in part]


def _key(shades: str, steps: Sequence[str]) -> str:
    return "from: " + "  ".join(
        f"{'blank' if mark == ' ' else mark} {step}" for mark, step in zip(shades, steps, strict=True)
    )


def _rows(labels: Sequence[str], label: int, cells: Sequence[Sequence[int]], shades: str) -> list[str]:
    side = "|" if shades == DIGITS else "▕"
    return [
        f"{text:>{label}} {side}" + "".join(shades[k] for k in row) for text, row in zip(labels, cells, strict=True)
    ]


def _axis(label: int, columns: int, end: str) -> str:
    return " " * (label + 2) + "0" + end.rjust(max(len(end) + 1, columns - 1))


def save_png(heat: Heat, file: Path, title: str, top: str = "DRAM") -> None:
    """Both pictures one above the other, in one PNG; the same bytes for the same numbers.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise UsageError("--png needs matplotlib: pip install 'klrubench[figures]'") from None
    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm, Normalize

    least, most = _limits(heat.rate)
    figure, axes = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    edges = [0.0, *(float(end) for end in heat.ends_s)]
    heights = list(range(len(heat.labels) + 1))
    scale = LogNorm(least, most) if most > 10 * least else Normalize(least, most)
    for axis, part, shade, name in (
        (axes[0], heat.rate.clip(min=least), {"norm": scale}, "touches / page / s"),
        (axes[1], 100 * heat.in_top, {"vmin": 0, "vmax": 100}, f"% of pages in {top}"),
    ):
        mesh = axis.pcolormesh(edges, heights, part, cmap="cividis", rasterized=True, **shade)
        figure.colorbar(mesh, ax=axis, label=name)
        every = max(1, len(heat.labels) // 8)
        axis.set_yticks([k + 0.5 for k in heights[:-1][::every]], heat.labels[::every])
        axis.invert_yaxis()
        axis.set_ylabel("address, GiB" if heat.order == "address" else "pages, hottest first")
    axes[1].set_xlabel("virtual time, s")
    figure.suptitle(title, fontsize=10)
    try:
        figure.savefig(file, dpi=150, metadata={"Software": None})
    finally:
        plt.close(figure)
