"""Marks that several figures share: lines with intervals, grouped or stacked bars, maps with a word in each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from klrubench.figures.style import GREY, look

if TYPE_CHECKING:
    import polars as pl

WORDS = {
    "klruscand": "klruscand",
    "numa_balancing": "NUMA balancing",
    "random_sampling": "random sampling",
    "random_promotion": "random promotion",
    "first_touch": "no migration",
    "all_lower": "all in CXL",
    "all_top": "all in DRAM",
    "oracle_static": "static oracle",
    "oracle_window": "window oracle",
    "damon": "DAMON",
    "klruscand:hash=sized": "klruscand, sized hash",
}


def word_for(label: str) -> str:
    """How a figure names a policy, from its label (`klruscand:hash=sized` -> `klruscand, hash=sized`)."""
    if label in WORDS:
        return WORDS[label]
    name, _, rest = label.partition(":")
    return WORDS.get(name, name) + (", " + rest.replace(",", ", ") if rest else "")


def policy_name(label: str) -> str:
    """The policy's name without parameters."""
    return label.partition(":")[0]


def lines(
    axes: Any,
    data: pl.DataFrame,
    x: str,
    y: str,
    by: str,
    *,
    half: str = "",
    marks: bool = True,
    words: Mapping[str, str] | None = None,
) -> None:
    """A line for each value of `by`, in order of appearance; `half` names a column with half an interval."""
    for place, label in enumerate(dict.fromkeys(data[by])):
        part = data.filter(data[by] == label).sort(x, maintain_order=True)
        how = look(str(label), place)
        text = (words or {}).get(str(label)) or word_for(str(label))
        xs, ys = part[x].to_list(), part[y].to_list()
        axes.plot(
            xs,
            ys,
            color=how.colour,
            linestyle=how.dashes,
            marker=how.marker if marks else "",
            markerfacecolor="white" if how.marker in "osD^vPd" else how.colour,
            label=text,
            zorder=3,
        )
        if half and part[half].null_count() < part.height:
            axes.errorbar(
                xs,
                ys,
                yerr=part[half].fill_null(0).to_list(),
                fmt="none",
                ecolor=how.colour,
                elinewidth=0.6,
                capsize=1.5,
            )


def bars(
    axes: Any,
    data: pl.DataFrame,
    group: str,
    value: str,
    by: str,
    *,
    half: str = "",
    stacked: bool = False,
    words: Mapping[str, str] | None = None,
) -> None:
    """Bars of `value`: one group of bars for each value of `group`, in it a bar (or with `stacked` a part) by `by`."""
    groups, kinds = list(dict.fromkeys(data[group])), list(dict.fromkeys(data[by]))
    thick = 0.7 if stacked else 0.84 / len(kinds)
    base = [0.0] * len(groups)
    for place, kind in enumerate(kinds):
        part = data.filter(data[by] == kind)
        known = dict(zip(part[group], part[value], strict=True))
        heights = [known.get(name) or 0.0 for name in groups]
        how = look(str(kind), place)
        shift = 0.0 if stacked else (place - (len(kinds) - 1) / 2) * thick
        spots = [index + shift for index in range(len(groups))]
        axes.bar(
            spots,
            heights,
            thick,
            bottom=base if stacked else None,
            facecolor=how.colour if not how.hatch else "white",
            edgecolor=how.colour,
            hatch=how.hatch,
            linewidth=[0.7 if height else 0.0 for height in heights],
            label=(words or {}).get(str(kind)) or word_for(str(kind)),
        )
        if half:
            ends = dict(zip(part[group], part[half], strict=True))
            errors = [ends.get(name) or 0.0 for name in groups]
            axes.errorbar(spots, heights, yerr=errors, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
        if stacked:
            base = [below + height for below, height in zip(base, heights, strict=True)]
    axes.set_xticks(range(len(groups)), [str(name) for name in groups])
    axes.grid(False, axis="x")


def annotated_map(
    axes: Any,
    data: pl.DataFrame,
    x: str,
    y: str,
    value: str,
    *,
    text: str = "",
    unit: str = "",
    number: str = "{:.0f}",
    diverging: bool = False,
) -> None:
    """A cell for each (x, y), shaded by `value`, with its number and below it the text of the column `text`.

    `diverging`: where something is below zero, shades of blue above and of orange below it; the sign is in the number.
    """
    columns, rows = sorted(dict.fromkeys(data[x])), sorted(dict.fromkeys(data[y]))
    grid: list[list[float]] = [[float("nan")] * len(columns) for _ in rows]
    for one in data.iter_rows(named=True):
        if one[value] is not None:
            grid[rows.index(one[y])][columns.index(one[x])] = one[value]
    shades = [cell for line in grid for cell in line if cell == cell]
    diverging = diverging and min(shades, default=0.0) < 0
    limit = max((abs(cell) for cell in shades), default=1.0) or 1.0
    low, high = (-limit, limit) if diverging else (min(shades, default=0.0), max(shades, default=1.0))
    picture = axes.imshow(grid, origin="lower", aspect="auto", cmap=_shades(diverging), vmin=low, vmax=high)
    small = axes.xaxis.label.get_size() * 0.72
    for one in data.iter_rows(named=True):
        if one[value] is None:
            continue
        words = number.format(one[value]) + (f"\n{one[text]}" if text and one[text] else "")
        deep = abs(one[value]) / limit if diverging else (one[value] - low) / ((high - low) or 1.0)
        axes.text(
            columns.index(one[x]),
            rows.index(one[y]),
            words,
            ha="center",
            va="center",
            fontsize=small,
            linespacing=1.05,
            color="white" if deep > 0.62 else "black",
        )
    axes.set_xticks(range(len(columns)), [_short(each) for each in columns])
    axes.set_yticks(range(len(rows)), [_short(each) for each in rows])
    axes.grid(False)
    bar = axes.figure.colorbar(picture, ax=axes, pad=0.02, aspect=25)
    bar.set_label(unit)
    bar.outline.set_linewidth(0.4)


def _shades(diverging: bool) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#8a3d00", "#E69F00", "#ffffff", "#56B4E9", "#004a75"] if diverging else ["#ffffff", "#56B4E9", "#003350"]
    return LinearSegmentedColormap.from_list("klrubench", stops)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def log_axis(axes: Any, low: float, high: float) -> None:
    """A logarithmic x axis with plain numbers from under `low` to over `high`; left linear where `low` is under 1."""
    if low < 1:
        axes.set_xlim(min(0.0, low), high * 1.1)
        return
    ends = low / 1.2, high * 1.2
    axes.set_xscale("log")
    axes.set_xlim(*ends)
    ticks = [first * 10.0**power for power in range(6) for first in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if ends[0] < tick < ends[1]])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks([], minor=True)


def band(axes: Any, spots: Sequence[float], words: str) -> None:
    """Vertical hair lines, the first with words at its foot: events in a time line."""
    for place, spot in enumerate(spots):
        axes.axvline(spot, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        if place == 0:
            axes.annotate(
                words, (spot, 0.0), xycoords=("data", "axes fraction"), xytext=(3, 3), textcoords="offset points",
                ha="left", va="bottom", fontsize=axes.xaxis.label.get_size() * 0.85, color="#444444",
            )  # fmt: skip
