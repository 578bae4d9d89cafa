"""Footnotes: letters in the order of first use, and the notes that every table owes its reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from klrubench.report.text import wrapped

SATURATED = 0.95

SCOPE = "Scope: policies are compared under a stated model; absolute times are not claimed."
VERDICT = "* p<.05, ** p<.01 against the next best (Holm over policies); exact: seeds make no difference"
EQUAL = "equal, surely within +-1 point: "
FEW = "one seed: no interval, no verdict"
SCALE = (
    "simulated smaller: pages, accesses, capacities, watermarks, bandwidth, limits, budgets, batches, heap and Bloom "
    "bits shrink together and costs grow back; not invariant: page-table geometry (512 PTEs, 64-PMD window, "
    "1 GiB visits), DAMON regions, costs a pass and a wake-up"
)
WAKE = (
    "a promotion refused for want of free DRAM wakes kswapd; as posted it does so only with numa_balancing bit 2 "
    "(wake_kswapd=posted)"
)
GAP = "(first_touch - policy) / (first_touch - oracle); '-' where that gap is under 1 point; controls left out"
CHARGED = "kernel threads' CPU time spread over the application's CPUs, computed after the run"
YOUNG = "young: share of pages touched within 2 s; rate on an unloaded all-DRAM machine"


class Footnotes:
    """Hands out `[a]`, `[b]`, ... for texts, the same letter for the same text."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        """The mark to set behind what the text is about."""
        if text not in self._texts:
            self._texts.append(text)
        return f"[{_letters(self._texts.index(text))}]"

    def lines(self, width: int) -> list[str]:
        """The notes in order, each on lines of at most `width` columns."""
        marked = (f"[{_letters(number)}] {text}" for number, text in enumerate(self._texts))
        return [line for text in marked for line in wrapped(text, width, "    ")]


def told(notes: Mapping[str, Iterable[str]]) -> list[str]:
    """What runs had to say, equal notes of several workloads in one line.

    Args:
        notes: the notes of each workload's runs.
    """
    groups: dict[str, list[str]] = {}
    for label, texts in notes.items():
        for text in dict.fromkeys(texts):
            groups.setdefault(text, []).append(label)
    return [f"{', '.join(labels)}: {text}" for text, labels in groups.items()]


def _letters(number: int) -> str:
    return chr(97 + number) if number < 26 else _letters(number // 26 - 1) + chr(97 + number % 26)


def saturated(labels: Iterable[str]) -> str:
    """The note on workloads whose pages are all young; empty when there are none."""
    names = ", ".join(dict.fromkeys(labels))
    if not names:
        return ""
    return f"saturated ({names}): nearly every page is young in every pass, so an accessed bit cannot rank pages"


def seeds_change(by_workload: dict[str, str]) -> str:
    """What a seed changes, workloads with the same answer together."""
    groups: dict[str, list[str]] = {}
    for workload, change in by_workload.items():
        groups.setdefault(change, []).append(workload)
    if not groups:
        return ""
    common = max(groups, key=lambda change: len(groups[change]))
    others = [f"{', '.join(names)}: {change}" for change, names in groups.items() if change != common]
    return f"seeds change {common}" + "".join(f"; {other}" for other in others)
