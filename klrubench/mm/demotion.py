"""Where reclaim demotes to: the preferred nodes of the next lower tier, and what is left when they are full.

Sources: establish_demotion_targets, next_demotion_node (mm/memory-tiers.c), demote_folio_list, alloc_migrate_folio
(mm/vmscan.c). The first try asks the preferred node alone and wakes its kswapd below the low watermark (4 KiB folios
only: the allocation of a large one carries no reclaim flag), so that a middle tier makes room in its turn; the second
asks all lower tiers, nearest first. Neither reclaims itself. What finds no room stays where it is: there is no swap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.jit import njit_inline
from klrubench.engine.random import GOLDEN, below, mix64
from klrubench.mm.folio import folio_nr_pages
from klrubench.mm.lru import lru_add
from klrubench.mm.migrate import demote_isolated
from klrubench.mm.state import (
    DEMOTION_ALLOWED,
    DEMOTION_PREFERRED,
    DEMOTION_TARGET,
    FREE,
    KSWAPD_WAKE,
    NODE_DRAWS,
    NODE_KEY,
    PGMIGRATE_FAIL,
    TIER,
    WMARK_LOW,
    WMARK_MIN,
)

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm
    from klrubench.simulate import System

NODE_BITS = 4  # a list of nodes is packed into one word, nearest first: node + 1 in each four bits


def set_demotion_targets(system: System) -> None:
    """Preferred and allowed nodes of each node; none where `demotion_enabled` is off."""
    node, machine = system.mm.node, system.machine
    for source in range(len(node)):
        lower = (
            [k for k in range(len(node)) if node[k, TIER] > node[source, TIER]]
            if system.sysctl("demotion_enabled")
            else []
        )
        distance = {k: machine.nodes[k].read_ns[source] for k in lower}
        lower.sort(key=lambda k: (node[k, TIER], distance[k], k))
        next_tier = [k for k in lower if node[k, TIER] == node[lower[0], TIER]]
        preferred = [k for k in next_tier if distance[k] == distance[lower[0]]]
        node[source, DEMOTION_TARGET] = preferred[0] if preferred else -1
        node[source, DEMOTION_PREFERRED], node[source, DEMOTION_ALLOWED] = packed(preferred), packed(lower)


def packed(nodes: list[int]) -> int:
    """A list of nodes as one word."""
    return sum((k + 1) << NODE_BITS * place for place, k in enumerate(nodes))


@njit_inline
def next_demotion_node(mm: Mm, source: int) -> int:
    """The node that a batch is to be demoted to: one of the preferred ones, at random where several are as near."""
    nodes, n = mm.node[source, DEMOTION_PREFERRED], 0
    while nodes >> NODE_BITS * n:
        n += 1
    if n < 2:
        return mm.node[source, DEMOTION_TARGET]
    mm.setting[NODE_DRAWS] += 1
    word = mix64(np.uint64(mm.setting[NODE_KEY]) + np.uint64(mm.setting[NODE_DRAWS]) * GOLDEN)
    return (nodes >> NODE_BITS * np.int64(below(word, np.uint64(n))) & 15) - 1


@njit_inline
def has_room(mm: Mm, node: int, pages: int, mark: int) -> bool:
    """Whether a node keeps a watermark after an allocation."""
    return mm.node[node, FREE] >= pages and mm.node[node, FREE] - pages >= mm.node[node, mark]


@njit_inline
def alloc_migrate_node(mm: Mm, source: int, preferred: int, pages: int) -> Int:
    """The node on which a demoted folio finds room, or -1."""
    if has_room(mm, preferred, pages, WMARK_LOW):
        return preferred
    if pages == 1:
        mm.node[preferred, KSWAPD_WAKE] = 1
    if has_room(mm, preferred, pages, WMARK_MIN):
        return preferred
    for mark in (WMARK_LOW, WMARK_MIN):
        nodes = mm.node[source, DEMOTION_ALLOWED]
        while nodes:
            node = (nodes & 15) - 1
            if has_room(mm, node, pages, mark):
                return node
            if mark == WMARK_LOW and pages == 1:
                mm.node[node, KSWAPD_WAKE] = 1
            nodes >>= NODE_BITS
    return np.int64(-1)


@njit_inline
def demote(mm: Mm, page: int, source: int, preferred: int, fold: int) -> Int:
    """Move an isolated victim of reclaim down; returns the 4 KiB pages demoted (0: put back, no room anywhere)."""
    node = alloc_migrate_node(mm, source, preferred, folio_nr_pages(mm, page))
    if node >= 0:
        return demote_isolated(mm, page, node, fold)
    mm.stat[PGMIGRATE_FAIL] += folio_nr_pages(mm, page)
    lru_add(mm, page, False)
    return np.int64(0)
