"""What stands above every table: how many runs, on which machine, at which scale, under which sysctls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from klrubench.machine import Machine
from klrubench.machine.sysctls import default_sysctls, full_name
from klrubench.report.footnotes import BESIDE, SCALE, WAKE, Footnotes
from klrubench.report.text import joined, significant, wrapped
from klrubench.workload import HUGE_ORDER, PAGE_ORDERS

ALWAYS = ("kernel.numa_balancing", "demotion_enabled")


@dataclass(frozen=True)
class Header:
    """The facts that a table has in common.

    Attributes:
        runs, seeds: how many runs, and paired seeds a cell.
        duration_s: seconds the work takes on an unloaded all-DRAM machine.
        machine: the machine, of one run if they differ.
        scales: full-size pages a simulated one stands for, by workload.
        footprints_gib, threads, pages: full-size footprint, busy cores and leaf size, by workload.
        daemon_cpus: `spare` or `shared`.
        sysctls: settings that a policy brings along, by policy.
        seeds_change, calibration: what a seed changes, and which published slowdown it is set to, by workload.
        varies: what differs between rows (`ratio`), and so is not said here.
        wakes: whether a policy has the choice of waking kswapd after a refused promotion.
    """

    runs: int
    seeds: int
    duration_s: float
    machine: Machine
    scales: Mapping[str, int] = field(default_factory=dict)
    footprints_gib: Mapping[str, float] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    daemon_cpus: str = "spare"
    sysctls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds_change: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, str] = field(default_factory=dict)
    varies: frozenset[str] = frozenset()
    wakes: bool = False

    @classmethod
    def of(cls, facts: Mapping[str, Any], **more: Any) -> Header:
        """The header that a comparison's facts describe: same names, the machine as plain data."""
        machine = Machine.from_dict(facts["machine"])
        return cls(**{**facts, "machine": machine, "varies": frozenset(facts.get("varies", ())), **more})

    @property
    def tiers(self) -> tuple[str, str]:
        """Names of the top and of the lowest tier: those of their first nodes."""
        nodes = sorted(self.machine.nodes, key=lambda node: node.tier)
        return nodes[0].name, next(node.name for node in nodes if node.tier == nodes[-1].tier)


# 4 KiB and 2 MiB are pages of the hardware; what lies between is a folio of many PTEs
PAGE_WORDS = {
    name: f"{name[:-1]} {'KiB' if name[-1] == 'k' else 'MiB'} {'pages' if order in (0, HUGE_ORDER) else 'folios'}"
    for name, order in PAGE_ORDERS.items()
}


def header_lines(header: Header, notes: Footnotes, width: int) -> list[str]:
    """The lines above a table, each at most `width` columns."""
    machine = header.machine
    about = [
        f"{header.runs} {'run' if header.runs == 1 else 'runs'}",
        "1 seed" if header.seeds == 1 else f"{header.seeds} paired seeds",
        f"{significant(header.duration_s, 3)} s (steady: last {significant(header.duration_s / 2, 3)} s)",
        f"kernel {machine.kernel}",
        f"HZ {machine.hz}",
        _per_workload(header.pages, PAGE_WORDS),
    ]
    sizing = "" if "ratio" in header.varies else machine.sizing()
    changes = machine.cost_changes()
    lines = joined(about, width, ", ")
    named = machine.header()
    if "machine" in header.varies:
        named = f"machine: as each row says; {named.removeprefix('machine ')}, and others"
    lines += joined([*named.split("; "), sizing], width, "; ", "  ")
    size, switches = _size(header, notes), settings(machine.sysctls, header.sysctls)
    if machine.sysctls["kernel.numa_balancing"]:
        switches = [f"{each} {notes.mark(BESIDE)}" if each.startswith("numa_balancing=") else each for each in switches]
    switches[-1] += f" {notes.mark(WAKE)}" if header.wakes else ""
    lines += joined([*size, *switches], width, "; ", "  ")
    return lines + (wrapped(f"costs changed: {changes}", width, "  ") if changes else [])


def _size(header: Header, notes: Footnotes) -> list[str]:
    scale = _per_workload(header.scales, {}, _scale)
    simulated_smaller = any(fold > 1 for fold in header.scales.values())
    where = "spare ones" if header.daemon_cpus == "spare" else "the same"
    cores = _per_workload(header.threads, {}, str)
    footprint = _per_workload(header.footprints_gib, {}, lambda value: f"{significant(value, 3)} GiB")
    return [
        f"{footprint} at scale {scale} {notes.mark(SCALE) if simulated_smaller else ''}".rstrip() if footprint else "",
        f"{cores} busy cores, kernel threads on {where}" if cores else "",
    ]


def _scale(fold: int) -> str:
    return "1" if fold == 1 else f"1/{fold}"


def _per_workload(values: Mapping[str, Any], words: Mapping[Any, str], show: Any = str) -> str:
    """The common value, with those that differ in brackets."""
    if not values:
        return ""
    common = Counter(values.values()).most_common(1)[0][0]
    text: dict[Any, str] = {value: words.get(value, show(value)) for value in values.values()}
    groups: dict[Any, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    others = [f"{text[value]}: {' '.join(names)}" for value, names in groups.items() if value != common]
    return text[common] + (f" ({', '.join(others)})" if others else "")


def settings(base: Mapping[str, int], changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """`name=value` of the settings that matter here, and which policies run under another value.

    Args:
        base: every setting of the machine.
        changes: settings that a policy brings along, by policy; names may be short.
    """
    defaults = default_sysctls()
    full = {policy: {full_name(name): value for name, value in values.items()} for policy, values in changes.items()}
    moved = {name for values in full.values() for name, value in values.items() if value != base.get(name)}
    names = [name for name in base if name in ALWAYS or name in moved or base[name] != defaults.get(name)]
    return [
        _setting(name, base[name], {policy: own[name] for policy, own in full.items() if name in own}) for name in names
    ]


def _setting(name: str, value: int, by_policy: Mapping[str, Any]) -> str:
    others: dict[Any, list[str]] = {}
    for policy, own in by_policy.items():
        if own != value:
            others.setdefault(own, []).append(policy)
    exceptions = ", ".join(f"={own} for {' '.join(policies)}" for own, policies in others.items())
    short = name if name.startswith("tlb/") else name.rpartition("/")[2].rpartition(".")[2]
    return f"{short}={value}{f' ({exceptions})' if exceptions else ''}"
