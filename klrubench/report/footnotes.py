"""Footnotes: letters in the order of first use, and the notes that every table owes its reader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from klrubench.report.text import wrapped

SATURATED = 0.95

SCOPE = "Scope: policies are compared under a stated model; absolute times are not claimed."
VERDICT = "* p<.05, ** p<.01 against the next best (Holm over policies); exact: seeds make no difference"
EQUAL = "equal, surely within +-1 point: "
FEW = "one seed: no interval, no verdict"
SCALE = (
    "simulated smaller: pages, accesses, capacities, watermarks, bandwidth, limits, budgets, batches, heap and Bloom "
    "bits shrink together and costs grow back; not invariant: page-table geometry (512 PTEs, "
    "1 GiB visits), DAMON regions, costs a pass and a wake-up"
)
WAKE = (
    "a promotion refused for want of free DRAM wakes kswapd; as posted it does so only with numa_balancing bit 2 "
    "(wake_kswapd=posted)"
)
BESIDE = (
    "numa_balancing other than 0: policies take hint faults beside their own source, and pages are promoted in them; "
    "bounds take none"
)
GAP = "gap closed: (first_touch - policy) / (first_touch - oracle_static); '-' where that is under 1 point; no controls"
SAMPLING = "random_sampling: idle page tracking on random pages, not PEBS or IBS"
YOUNG = "young: share of pages touched within 2 s; rate on an unloaded all-DRAM machine"


class Footnotes:
    """Hands out `[a]`, `[b]`, ... for texts, the same letter for the same text; and keeps the key of short names."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._key: list[str] = []

    def spell_out(self, lines: Iterable[str]) -> None:
        """Keep what short names stand for, each once."""
        self._key += [line for line in lines if line not in self._key]

    def key(self, width: int) -> list[str]:
        """The short names and what they stand for, on lines of at most `width` columns."""
        return wrapped("; ".join(self._key), width, "  ") if self._key else []

    def mark(self, text: str) -> str:
        """The mark to set behind what the text is about."""
        if text not in self._texts:
            self._texts.append(text)
        return f"[{_letters(self._texts.index(text))}]"

    def lines(self, width: int) -> list[str]:
        """The notes in order, each on lines of at most `width` columns."""
        marked = (f"[{_letters(number)}] {text}" for number, text in enumerate(self._texts))
        return [line for text in marked for line in wrapped(text, width, "    ")]


def told(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """What runs had to say: equal notes in one line, under the workload where all of its policies say it.

    Args:
        runs: rows with `workload`, `policy` and `notes_json` (a list of texts).
    """
    policies: dict[str, set[str]] = {}
    sayers: dict[str, dict[str, set[str]]] = {}
    for run in runs:
        policies.setdefault(run["workload"], set()).add(run["policy"])
        for text in json.loads(run.get("notes_json") or "[]"):
            sayers.setdefault(text, {}).setdefault(run["workload"], set()).add(run["policy"])
    return [f"{', '.join(_sayers(own, policies))}: {text}" for text, own in sayers.items()]


def _sayers(own: Mapping[str, set[str]], policies: Mapping[str, set[str]]) -> list[str]:
    """`kv` where every policy says it, else `kv/klruscand`."""
    found = [
        [workload] if said == policies[workload] else [f"{workload}/{policy}" for policy in sorted(said)]
        for workload, said in own.items()
    ]
    return [name for names in found for name in names]


def _letters(number: int) -> str:
    return chr(97 + number) if number < 26 else _letters(number // 26 - 1) + chr(97 + number % 26)


def saturated(labels: Iterable[str]) -> str:
    """The note on workloads whose pages are all young; empty when there are none."""
    names = ", ".join(dict.fromkeys(labels))
    if not names:
        return ""
    return f"saturated ({names}): nearly every page is young in every pass: a bit read once a pass cannot rank pages"


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
