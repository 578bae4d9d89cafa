"""The future: which pages are best kept on the top tier in each window. Instruments judge promotions by it; only oracles may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.mm.state import CAPACITY, VMA_ORDER, WINDOW
from klrubench.simulate.feed import HORIZON, hottest

if TYPE_CHECKING:
    from klrubench.simulate.system import System


def window_counts(system: System) -> np.ndarray:
    """u32 [windows, pages of the machine]: touches that miss the CPU cache, by window of the first tenant."""
    feeds = [tenant.feed for tenant in system.tenants]
    if len(feeds) == 1 and feeds[0].pages == len(system.mm.pte):
        return feeds[0].truth()
    counts = np.zeros((feeds[0].windows(), len(system.mm.pte)), np.uint32)
    for tenant, feed in zip(system.tenants, feeds, strict=True):
        own = feed.truth()
        rows = min(len(counts), len(own))
        counts[:rows, tenant.first_page : tenant.first_page + feed.pages] = own[:rows]
    return counts


def top_leaves(system: System) -> int:
    """Leaves that the top tier holds (in units of the largest leaf in use)."""
    orders = system.mm.vma[:, VMA_ORDER]
    pages = int(sum(system.mm.node[k, CAPACITY] for k in system.machine.top_nodes))
    return max(1, pages >> int(orders.max()))


def best_of_window(counts: np.ndarray, index: int, capacity: int) -> np.ndarray:
    """Pages with the most touches in the windows index .. index + 2, `capacity` of them."""
    return hottest(counts[index : index + HORIZON].sum(axis=0, dtype=np.int64), capacity)


def mark_windows(system: System) -> None:
    """Set `mm.best` and let the current window follow the first tenant's touches."""
    feed, capacity = system.tenants[0].feed, top_leaves(system)
    if len(system.tenants) == 1 and feed.pages == len(system.mm.pte):
        system.mm.best[:] = feed.best_sets(capacity)
    else:
        counts = window_counts(system)
        for index in range(len(counts)):
            system.mm.best[best_of_window(counts, index, capacity)] |= np.uint32(1 << index)
    for index in range(feed.windows()):
        system.at_touch(feed.window_start(index), lambda index=index: _enter(system, index))  # type: ignore[misc]


def _enter(system: System, index: int) -> None:
    system.mm.setting[WINDOW] = index


