"""Captions: what is drawn, what was run (from the runs themselves), and which expectation did not come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import polars as pl

    from klrubench.figures.finding import Figure

_LISTED = 7


class Verdict(NamedTuple):
    """An expectation beside what came of it."""

    statement: str
    good: bool
    found: str


def judged(figure: Figure, data: pl.DataFrame) -> list[Verdict]:
    """Every expectation of a figure, checked."""
    return [Verdict(each.statement, *each.found(data)) for each in figure.expectations]


def caption(figure: Figure, runs: pl.DataFrame, verdicts: Sequence[Verdict]) -> str:
    """The whole caption as plain text."""
    parts = [figure.caption, what_was_run(runs)]
    if figure.quick:
        parts.append("Quick version, coarser and with fewer seeds than the study's: not for publication.")
    parts += [f"Expected, and came out: {each.statement}" for each in verdicts if each.good]
    for each in verdicts:
        if not each.good:
            instead = f" Found: {each.found}." if each.found else ""
            parts.append(f"EXPECTED, BUT DID NOT COME OUT: {each.statement}{instead}")
    return " ".join(parts)


def what_was_run(runs: pl.DataFrame) -> str:
    """Policies, workloads, machine, memory, scale, work and seeds of some runs, in a sentence."""
    words = [
        f"Runs: {_few(runs['policy'].to_list(), 'settings of ' + _names(runs['policy_name'].to_list()))}",
        f"on {_few(runs['workload'].to_list(), 'settings of ' + _names(runs['workload_name'].to_list()))}",
        f"machine {_few(runs['machine_text'].to_list(), 'machines')}",
    ]
    ratios = [ratio for ratio in dict.fromkeys(runs["ratio"]) if ratio]
    if ratios:
        words.append(f"DRAM:CXL {_few(ratios, 'ratios')}")
    sizes = [f"{size:g} GiB" for size in dict.fromkeys(runs["footprint_gib"]) if size is not None]
    folds = [f"1/{int(fold)}" for fold in sorted(set(runs["fold"]))]
    words.append(f"{' or '.join(sizes) or 'memory'} simulated at scale {' or '.join(folds)}")
    spans = sorted({f"{seconds:g} s of work" for seconds in runs["duration_s"]})
    seeds = runs["seed"].n_unique()
    words.append(f"{' or '.join(spans)}, {seeds} paired seed{'s' if seeds != 1 else ''}")
    bars = "; intervals, where drawn, are 95 % over seeds" if seeds > 1 else "; one seed, so no intervals"
    return "; ".join(words) + bars + "."


def _few(values: Sequence[str], many: str) -> str:
    names = list(dict.fromkeys(values))
    return ", ".join(names) if len(names) <= _LISTED else f"{len(names)} {many}"


def _names(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))
