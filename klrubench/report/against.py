"""A measured series beside a simulated one, and how far they are apart."""

from __future__ import annotations

from klrubench.report.text import Column, fixed, joined, table, wrapped
from klrubench.validation.against import Held, Pair

MOST_ROWS = 24


def against_text(held: Held, width: int) -> str:
    """Both series second by second (about two dozen of them), then the differences; no line passes `width`."""
    scale = "1" if held.fold == 1 else f"1/{held.fold}"
    lines = joined([held.source, f"{len(held.seconds)} rows, {held.seconds[-1]:g} s"], width, ", ")
    lines += joined([f"  {held.policy} on {held.workload}", f"seed {held.seed}", f"scale {scale}"], width, ", ", "    ")
    lines += wrapped(f"  {held.machine}", width, "    ")
    shown = rows_shown(len(held.seconds))
    for pairs in _blocks(held.pairs, width):
        lines += ["", *_series(held.seconds, pairs, shown)]
    lines += ["", *table(_differences(held.pairs))]
    return "\n".join(
        [*lines, *wrapped("  in % of what was measured by the last second; - where that is 0", width, "  ")]
    )


def rows_shown(count: int) -> list[int]:
    """Which rows are printed: all, or about two dozen at even distances with the first and the last."""
    if count <= MOST_ROWS:
        return list(range(count))
    return sorted({round(k * (count - 1) / (MOST_ROWS - 1)) for k in range(MOST_ROWS)})


def _series(seconds: list[float], pairs: list[Pair], shown: list[int]) -> list[str]:
    columns = [Column(("second",), [f"{seconds[k]:g}" for k in shown], gap=0)]
    for pair in pairs:
        columns.append(Column(("measured",), [fixed(pair.measured[k]) for k in shown], group=pair.name, gap=3))
        columns.append(Column(("simulated",), [fixed(pair.simulated[k]) for k in shown], group=pair.name, gap=2))
    return table(columns)


def _blocks(pairs: list[Pair], width: int) -> list[list[Pair]]:
    """As many counters side by side as fit."""
    blocks: list[list[Pair]] = [[]]
    used = 0
    for pair in pairs:
        digits = max(9, len(fixed(max(*pair.measured, *pair.simulated))))
        need = 2 * digits + 5
        if blocks[-1] and used + need > width - 10:
            blocks.append([])
            used = 0
        blocks[-1].append(pair)
        used += need
    return blocks


def _differences(pairs: list[Pair]) -> list[Column]:
    return [
        Column(("counter",), [pair.name for pair in pairs], left=True, gap=0),
        Column(("measured",), [fixed(pair.measured[-1]) for pair in pairs], gap=2),
        Column(("simulated",), [fixed(pair.simulated[-1]) for pair in pairs], gap=2),
        Column(("at the", "end"), [percent(pair.end) for pair in pairs], gap=2),
        Column(("largest",), [percent(pair.largest) for pair in pairs], gap=2),
        Column(("at", "second"), ["-" if pair.largest is None else f"{pair.largest_at_s:g}" for pair in pairs], gap=2),
    ]


def percent(share: float | None) -> str:
    """A difference with its sign, in percent."""
    return "-" if share is None else f"{100 * share:+.1f}"
