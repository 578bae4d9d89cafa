"""The future: which pages are best kept on the top tier in each window.

Instruments judge promotions by it; only oracles may ask.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.mm.state import CAPACITY, LARGE_FOLIOS, VMA_END, VMA_LEAF_ORDER, VMA_ORDER, VMA_START, WINDOW
from klrubench.simulate.feed import HORIZON, hottest

if TYPE_CHECKING:
    from klrubench.mm.state import Mm
    from klrubench.simulate.system import System


def window_counts(system: System) -> np.ndarray:
    """u32 [windows, pages of the machine]: touches that miss the CPU cache, by window of the first tenant.

    The others' touches are those that an unloaded all-DRAM machine makes in the same seconds, their sleep included.
    """
    first, *others = system.tenants
    if not others and first.feed.pages == len(system.mm.pte):
        return first.feed.truth()
    starts = [first.feed.window_start(index) for index in range(first.feed.windows())]
    counts = np.zeros((len(starts), len(system.mm.pte)), np.uint32)
    counts[:, : first.feed.pages] = first.feed.truth()
    for tenant in others:
        bounds = (*(tenant.touch_at_s(first.second_of(start)) for start in starts), tenant.accesses)
        counts[:, tenant.first_page : tenant.first_page + tenant.feed.pages] = tenant.feed.truth(bounds)
    return counts


def top_leaves(system: System) -> int:
    """Leaves that the top tier holds (in units of the largest leaf in use)."""
    orders = system.mm.vma[:, VMA_LEAF_ORDER]
    pages = int(sum(system.mm.node[k, CAPACITY] for k in system.machine.top_nodes))
    return max(1, pages >> int(orders.max()))


def by_folio(mm: Mm, heat: np.ndarray) -> np.ndarray:
    """Touches a page, those of a large folio spread over its pages: it moves as a whole."""
    if not mm.setting[LARGE_FOLIOS]:
        return heat
    spread = heat.astype(np.float64)
    for first, last, order, leaf in mm.vma[:, [VMA_START, VMA_END, VMA_ORDER, VMA_LEAF_ORDER]]:
        folios = spread[first:last].reshape(-1, 1 << order - leaf)
        folios[:] = folios.mean(axis=1, keepdims=True)
    return spread


def best_of_window(mm: Mm, counts: np.ndarray, index: int, capacity: int) -> np.ndarray:
    """Pages with the most touches in the windows index .. index + 2, `capacity` of them."""
    return hottest(by_folio(mm, counts[index : index + HORIZON].sum(axis=0, dtype=np.int64)), capacity)


_several: dict[Any, np.ndarray] = {}


def _best_of_several(system: System, capacity: int) -> np.ndarray:
    """u32 a page, as `Feed.best_sets`, of several tenants; the latest is kept for the next policy."""
    key = (*(tenant.feed for tenant in system.tenants), capacity)
    found = _several.get(key)
    if found is None:
        counts, found = window_counts(system), np.zeros(len(system.mm.pte), np.uint32)
        for index in range(len(counts)):
            found[best_of_window(system.mm, counts, index, capacity)] |= np.uint32(1 << index)
        _several.clear()
        _several[key] = found
    return found


def mark_windows(system: System) -> None:
    """Set `mm.best` and let the current window follow the first tenant's touches."""
    feed, capacity = system.tenants[0].feed, top_leaves(system)
    if len(system.tenants) == 1 and feed.pages == len(system.mm.pte):
        system.mm.best[:] = feed.best_sets(capacity)
    else:
        system.mm.best[:] = _best_of_several(system, capacity)
    for index in range(feed.windows()):
        system.at_touch(feed.window_start(index), partial(_enter, system, index))


def _enter(system: System, index: int) -> None:
    system.mm.setting[WINDOW] = index
