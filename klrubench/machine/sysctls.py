"""The kernel settings that a machine has: names, defaults, ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from klrubench.errors import ParameterError, UnknownNameError

_U31 = (1 << 31) - 1


@dataclass(frozen=True)
class Sysctl:
    """One setting: its default here, its inclusive range in the kernel, and its meaning."""

    default: int
    low: int
    high: int
    help: str


SYSCTLS: dict[str, Sysctl] = {
    "kernel.numa_balancing": Sysctl(
        0, 0, 3, "hint faults, also beside other policies (not bounds): 0 off, 1 normal, 2 tiering, 3 both"
    ),
    "kernel.numa_balancing_promote_rate_limit_MBps": Sysctl(65536, 0, _U31, "promotion limit, MiB/s a node"),
    "lru_gen/enabled": Sysctl(7, 0, 7, "MGLRU: 1 on (else active/inactive lists), 2 walks, 4 PMD bits"),
    "demotion_enabled": Sysctl(1, 0, 1, "reclaim demotes (0 in a kernel at boot)"),
    "vm.watermark_scale_factor": Sysctl(10, 1, 3000, "gap between watermarks, node / 10000"),
    "vm.min_free_kbytes": Sysctl(0, 0, _U31, "KiB kept free; 0: the kernel's own rule"),
    "numa_balancing/scan_delay_ms": Sysctl(1000, 0, _U31, "age of a task at its first scan"),
    "numa_balancing/scan_period_min_ms": Sysctl(1000, 1, _U31, "shortest sweep over the memory"),
    "numa_balancing/scan_period_max_ms": Sysctl(60000, 1, _U31, "longest sweep over the memory"),
    "numa_balancing/scan_size_mb": Sysctl(256, 1, _U31, "MiB marked by one scan"),
    "numa_balancing/hot_threshold_ms": Sysctl(1000, 1, _U31, "hint latency that counts as hot"),
    "vm.pghot_promote_freq_window_ms": Sysctl(5000, 1, _U31, "pghot: largest gap between sightings; window_ms wins"),
    "vm.pghot_promote_rate_limit_MBps": Sysctl(65536, 0, _U31, "promotion limit, MiB/s a node"),
    "tlb/entries": Sysctl(0, 0, 1 << 16, "hardware, no sysctl: TLB entries a thread; 0 no TLB"),
    "tlb/ways": Sysctl(12, 1, 32, "associativity of the TLB"),
    "tlb/flush_on_switch": Sysctl(0, 0, 1, "each tick empties a TLB (no PCID, shared CPU)"),
    "tlb/shoot_all": Sysctl(1, 0, 1, "a shootdown: 1 empties the TLB (x86), 0 drops its pages"),
}


def default_sysctls() -> dict[str, int]:
    """Every setting at its default."""
    return {name: sysctl.default for name, sysctl in SYSCTLS.items()}


def full_name(name: str) -> str:
    """The setting's full name; its last part is enough (`scan_size_mb`).

    Raises:
        UnknownNameError: no such setting.
    """
    for known in SYSCTLS:
        if name == known or name == _last_part(known):
            return known
    nearest = [*SYSCTLS, *(_last_part(known) for known in SYSCTLS)]
    raise UnknownNameError("sysctl", name, nearest)


def _last_part(name: str) -> str:
    return name.replace("/", ".").rsplit(".", 1)[-1]


def changed_sysctls(base: Mapping[str, int], changes: Mapping[str, int | str]) -> dict[str, int]:
    """`base` with `changes` made; keys may be short names, values whole numbers or their decimal text.

    Raises:
        UnknownNameError: no such setting.
        ParameterError: not a whole number, out of range, a shortest period above the longest, or a number of TLB
            sets that is no power of two.
    """
    result = dict(base)
    for name, value in changes.items():
        known = full_name(name)
        result[known] = _checked(known, value)
    shortest, longest = (result[f"numa_balancing/scan_period_{end}_ms"] for end in ("min", "max"))
    if shortest > longest:
        raise ParameterError(f"sysctl scan_period_min_ms={shortest} is above scan_period_max_ms={longest}")
    _check_tlb(result["tlb/entries"], result["tlb/ways"])
    return result


def _check_tlb(entries: int, ways: int) -> None:
    sets = entries // ways
    if entries % ways or sets & (sets - 1):
        near = ways << max(0, round(math.log2(max(1.0, entries / ways))))
        raise ParameterError(
            f"sysctl tlb/entries={entries} in {ways} ways is no power of two of sets: "
            f"give tlb/entries={near}, or change tlb/ways"
        )


def _checked(name: str, value: int | str) -> int:
    legal = SYSCTLS[name]
    text = str(value).strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
    if isinstance(value, bool) or not legal.low <= number <= legal.high:
        raise ParameterError(f"sysctl {name}={value!r}: give a whole number from {legal.low} to {legal.high}")
    return number
