"""pghot's heaps: a max-heap of frames a top-tier node, ordered by frequency, and which of its entries is hot.

Shared by v1 and v2 of the series (see pghot_v1.py, pghot.py), whose stores differ in the record alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from klrubench.engine.bits import GEN_MASK
from klrubench.engine.jit import njit_inline
from klrubench.mm.folio import page_folio
from klrubench.mm.migrate import is_toptier
from klrubench.mm.state import KPROMOTED_NON_LRU, KPROMOTED_RIGHT_NODE

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.pghot import PghotArrays
    from klrubench.mm.pghot_v1 import UnpackedArrays
    from klrubench.mm.state import Mm

Heaps: TypeAlias = "PghotArrays | UnpackedArrays"

# i64 settings and counters of a store
THRESHOLD, WINDOW_JIFFIES, COUNT, MS_PER_JIFFY = range(4)
# a frame's place: index in its heap, or one of these
UNKNOWN, UNQUEUED = -2, -1


@njit_inline
def heap_put(p: Heaps, node: int, k: int, entry: int) -> None:
    """Write an entry at index k."""
    p.heap[node, k] = entry
    p.place[entry & 0xFFFFFFFF] = k


@njit_inline
def heap_up(p: Heaps, node: int, k: int, entry: int) -> int:
    """Let an entry rise from index k to where its frequency belongs; returns its index."""
    while k > 0:
        parent = p.heap[node, (k - 1) // 2]
        if parent >> 32 >= entry >> 32:
            break
        heap_put(p, node, k, parent)
        k = (k - 1) // 2
    heap_put(p, node, k, entry)
    return k


@njit_inline
def heap_down(p: Heaps, node: int, k: int, entry: int) -> None:
    """Let an entry sink from index k to where its frequency belongs."""
    n = p.heap_n[node]
    while 2 * k + 1 < n:
        child = 2 * k + 1
        if child + 1 < n and p.heap[node, child + 1] >> 32 > p.heap[node, child] >> 32:
            child += 1
        if p.heap[node, child] >> 32 <= entry >> 32:
            break
        heap_put(p, node, k, p.heap[node, child])
        k = child
    heap_put(p, node, k, entry)


@njit_inline
def heap_fix(p: Heaps, node: int, k: int, freq: int, frame: int) -> None:
    """Reposition an entry whose frequency became `freq`."""
    entry = (freq << 32) | frame
    if freq > p.heap[node, k] >> 32:
        heap_up(p, node, k, entry)
    else:
        heap_down(p, node, k, entry)


@njit_inline
def heap_push(p: Heaps, node: int, freq: int, frame: int) -> bool:
    """Queue a frame; False if the heap is full."""
    n = p.heap_n[node]
    if n == p.heap.shape[1]:
        return False
    p.heap_n[node] = n + 1
    heap_up(p, node, n, (freq << 32) | frame)
    return True


@njit_inline
def heap_remove(p: Heaps, node: int, k: int) -> int:
    """Take the entry at index k out of the heap; returns its frame."""
    frame = p.heap[node, k] & 0xFFFFFFFF
    last = p.heap_n[node] - 1
    p.heap_n[node] = last
    p.place[frame] = UNQUEUED
    if k < last:
        moved = p.heap[node, last]
        if heap_up(p, node, k, moved) == k:
            heap_down(p, node, k, moved)
    return frame


@njit_inline
def requeue(p: Heaps, frame: int, place: int, old: int, target: int, freq: int) -> int:
    """Bring the heaps up to date with a record's new frequency and node; 1: entered one, 2: it is full, 0: neither."""
    if place >= 0 and target != old:  # queued for another node: it moves to that one's heap
        heap_remove(p, old, place)
        place = UNQUEUED
    if place >= 0:
        if freq < p.setting[THRESHOLD]:
            heap_remove(p, old, place)
        else:
            heap_fix(p, old, place, freq, frame)
        return 0
    if freq >= p.setting[THRESHOLD]:
        return 1 if heap_push(p, target, freq, frame) else 2
    return 0


@njit_inline
def has_hot(p: Heaps, node: int) -> bool:
    """Whether a node's heap has a record to pop."""
    return p.heap_n[node] > 0 and p.heap[node, 0] >> 32 >= p.setting[THRESHOLD]


@njit_inline
def pop_hottest(p: Heaps, mm: Mm, node: int) -> tuple[Int, Int]:
    """Pop and forget the record with the highest frequency; (frame, its page or -1 if that can't be promoted)."""
    frame = np.int64(heap_remove(p, node, 0))
    p.place[frame] = UNKNOWN
    p.setting[COUNT] -= 1
    page = np.int64(mm.frame_page[frame])
    if page < 0 or not mm.folio[page_folio(mm, page)] & np.uint8(GEN_MASK):
        mm.stat[KPROMOTED_NON_LRU] += 1
        return frame, np.int64(-1)
    if is_toptier(mm, page):
        mm.stat[KPROMOTED_RIGHT_NODE] += 1
        return frame, np.int64(-1)
    return frame, page
