"""The versions of pghot behind one call: a hotness store that any source can feed, and the threads that promote.

v0            kpromoted, Mar 2025     hash, swept each second           hot at the first sighting (posted arithmetic)
v0-intended   the same, counting as its comments say                     2 sightings within 5000 ms, kept for a second
v1            Aug 2025                hash + heap, unpacked record      2 within 5000 ms; old ones dropped when popped
v2            Sep 2025                hash + heap, packed record        2 within 5000 ms; latency threshold
v3            Nov 2025                8 bytes a frame, kmigrated        3 within 5000 ms
v5-compact    Jan 2026                1 byte a frame, kmigrated         2 within 4000 ms; clock of 4096 jiffies
v5-precise    Jan 2026                4 bytes a frame, kmigrated        2 within 5000 ms; clock of 16384 jiffies
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np

from klrubench.errors import ParameterError, UnknownNameError
from klrubench.machine.sysctls import SYSCTLS
from klrubench.mm.kmigrated import Kmigrated
from klrubench.mm.kpromoted import Kpromoted
from klrubench.mm.pghot import Pghot
from klrubench.mm.pghot_map import FORMATS, MapPghot
from klrubench.mm.pghot_v0 import SweptPghot
from klrubench.mm.pghot_v1 import UnpackedPghot

if TYPE_CHECKING:
    from klrubench.simulate import System

PGHOT_VERSIONS = ("v0", "v0-intended", "v1", "v2", "v3", "v5-compact", "v5-precise")
WITH_HEAP = ("v1", "v2")
WINDOW_SYSCTL = "vm.pghot_promote_freq_window_ms"
PGHOT_DEFAULTS: dict[str, dict[str, Any]] = {name: {"threshold": 2, "window_ms": 5000.0} for name in PGHOT_VERSIONS}
"""What each version was posted with: sightings needed, and the longest gap between two of them."""
PGHOT_DEFAULTS["v3"]["threshold"] = 3
PGHOT_DEFAULTS["v5-compact"]["window_ms"] = 4000.0
PGHOT_EXPLAINS = {
    "v0": "Mar 2025, before pghot: a hash that kpromoted sweeps each second. As posted a gap is taken backwards and a "
    "new record counted twice: hot at the first sighting, so it promotes much, as its author's counters say",
    "v0-intended": "v0 counting as its comments say: slow sources seldom have two sightings between two sweeps",
    "v1": "Aug 2025: hash and heap, unpacked records; popped ones are dropped when older than two windows",
    "v2": "Sep 2025, the version of klruscand RFC v2: packed records (the 8th sighting wraps to 0), latency "
    "threshold, rate limit, free-space bypass",
    "v3": "Nov 2025: 8 bytes a frame, kmigrated walks in the order of frames; its masks were posted overlapping and "
    "are modelled as intended",
    "v5-compact": "Jan 2026, the default there: 1 byte a frame, up to 3 sightings, 5 bits of time; hot sections only",
    "v5-precise": "Jan 2026, CONFIG_PGHOT_PRECISE: 4 bytes a frame, up to 7 sightings, 14 bits of time",
}
"""What each version is, for a policy's `explains`."""


class HotnessStore(Protocol):
    """What a source of hotness sees of any version."""

    metadata_bytes: int

    def record(self, pages: np.ndarray, source: str, nid: int = -1) -> None:
        """Record sightings of u32 page ids, paid by the running thread.

        Args:
            source: `pgtable_scan`, `hint_fault`, `hwhint`; another name is counted in the sum alone.
            nid: node of the CPU that made the accesses; -1: unknown.
        """

    def set_window(self, window_ms: float) -> None:
        """Another longest gap between two sightings, from now on (vm.pghot_promote_freq_window_ms)."""


@overload
def pghot_engine(
    system: System, version: Literal["v1", "v2"] = "v2", *, threshold: int | None = None,
    window_ms: float | None = None, ideal_clock: bool = False, sized_hash: bool = False,
) -> Pghot: ...  # fmt: skip


@overload
def pghot_engine(
    system: System, version: str, *, threshold: int | None = None, window_ms: float | None = None,
    ideal_clock: bool = False, sized_hash: bool = False,
) -> HotnessStore: ...  # fmt: skip


def pghot_engine(
    system: System, version: str = "v2", *, threshold: int | None = None, window_ms: float | None = None,
    ideal_clock: bool = False, sized_hash: bool = False,
) -> HotnessStore:  # fmt: skip
    """Add a version's store and threads to `system`; returns the store.

    Args:
        version: one of `PGHOT_VERSIONS`.
        threshold: sightings in a row that make a page hot; None: as posted.
        window_ms: longest gap between two of them; None, or as posted: what the sysctl of that name says, if changed.
        ideal_clock: stored times neither wrap nor lose bits (ours; without effect on v0 and v1, whose times are whole).
        sized_hash: v1 and v2 with a hash list a record (ours).
    Raises:
        UnknownNameError: no such version. ParameterError: a setting that this version cannot have.
    """
    if version not in PGHOT_VERSIONS:
        raise UnknownNameError("pghot version", version, PGHOT_VERSIONS)
    posted = PGHOT_DEFAULTS[version]
    threshold = posted["threshold"] if threshold is None else threshold
    window_ms = _window_ms(system, posted["window_ms"], window_ms)
    _check(version, threshold, sized_hash)
    if version in FORMATS:
        return _with_kmigrated(system, MapPghot(version, threshold, window_ms, ideal_clock))
    if version not in WITH_HEAP:
        swept: HotnessStore = system.add(SweptPghot(threshold, window_ms, posted=version == "v0"))
        return swept
    unpacked = version == "v1" or ideal_clock
    kind = UnpackedPghot if unpacked else Pghot
    return _with_kpromoted(system, kind(version, threshold, window_ms, sized_hash))


def _window_ms(system: System, posted: float, given: float | None) -> float:
    """A window that was given, else the changed sysctl's, else the posted one.

    One sysctl serves versions of different defaults, so its own default means "as posted" (v5-compact: 4000).
    """
    if given is not None and given != posted:
        return given
    set_ms = system.sysctl(WINDOW_SYSCTL)
    return float(set_ms) if set_ms != SYSCTLS[WINDOW_SYSCTL].default else posted


def _check(version: str, threshold: int, sized_hash: bool) -> None:
    if version in FORMATS and threshold > FORMATS[version].freq_max:
        most = FORMATS[version].freq_max
        raise ParameterError(f"threshold={threshold}: pghot {version} counts sightings up to {most}; use 1 to {most}")
    if sized_hash and version not in WITH_HEAP:
        raise ParameterError(f"hash=sized: pghot {version} has no such hash; use it with {' or '.join(WITH_HEAP)}")


def _with_kmigrated(system: System, store: MapPghot) -> HotnessStore:
    system.add(store)
    for node in system.machine.lower_nodes:
        system.add(Kmigrated(store, node))
    return store


def _with_kpromoted(system: System, store: Pghot) -> Pghot:
    system.add(store)
    for node in system.machine.top_nodes:
        if system.machine.nodes[node].cpus or node == system.default_target:
            system.add(Kpromoted(store, node))
    return store
