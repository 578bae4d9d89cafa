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
PGHOT_DEFAULTS: dict[str, dict[str, Any]] = {name: {"threshold": 2, "window_ms": 5000.0} for name in PGHOT_VERSIONS}
"""What each version was posted with: sightings needed, and the longest gap between two of them."""
PGHOT_DEFAULTS["v3"]["threshold"] = 3
PGHOT_DEFAULTS["v5-compact"]["window_ms"] = 4000.0


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
        window_ms: longest gap between two of them; None: as posted.
        ideal_clock: stored times neither wrap nor lose bits (ours; without effect on v0 and v1, whose times are whole).
        sized_hash: v1 and v2 with a hash list a record (ours).
    Raises:
        UnknownNameError: no such version. ParameterError: a setting that this version cannot have.
    """
    if version not in PGHOT_VERSIONS:
        raise UnknownNameError("pghot version", version, PGHOT_VERSIONS)
    posted = PGHOT_DEFAULTS[version]
    threshold = posted["threshold"] if threshold is None else threshold
    window_ms = posted["window_ms"] if window_ms is None else window_ms
    _check(version, threshold, sized_hash)
    if version in FORMATS:
        return _with_kmigrated(system, MapPghot(version, threshold, window_ms, ideal_clock))
    if version not in WITH_HEAP:
        swept: HotnessStore = system.add(SweptPghot(threshold, window_ms, posted=version == "v0"))
        return swept
    unpacked = version == "v1" or ideal_clock
    kind = UnpackedPghot if unpacked else Pghot
    return _with_kpromoted(system, kind(version, threshold, window_ms, sized_hash))


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
