"""From (machine, workload, policy, seed) to a system with every page placed, ready to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import NODE_MASK, TABLE_SHIFT
from klrubench.engine.kthread import PS_PER_S
from klrubench.engine.random import stream_key
from klrubench.engine.tlb import new_tlb
from klrubench.errors import CapacityError, ScaleError, UsageError
from klrubench.mm.folio import whole_folios
from klrubench.mm.mglru.bloom import BLOOM_FILTER_SHIFT
from klrubench.mm.state import (
    CAPACITY,
    LARGE_FOLIOS,
    MM_RAN,
    TIER,
    VMA_END,
    VMA_LEAF_ORDER,
    VMA_MM,
    VMA_START,
    new_mm,
)  # fmt: skip
from klrubench.mm.vmscan import Kswapd, set_watermarks
from klrubench.simulate.feed import hottest, shared_feeds
from klrubench.simulate.placement import place
from klrubench.simulate.system import System
from klrubench.simulate.tenant import Tenant
from klrubench.simulate.timing import resolve_timing, simulated_touches
from klrubench.simulate.truth import by_folio, top_leaves, window_counts
from klrubench.workload import HUGE_ORDER, Layout

if TYPE_CHECKING:
    from klrubench.machine import Machine
    from klrubench.mm.state import Mm
    from klrubench.policy import Policy
    from klrubench.simulate.loop import Options
    from klrubench.workload import Vma, Workload

SLACK = 1.08  # room beyond its share that a node sized by ratio has: watermarks, migration, the bounds
LEAST_PAGES = 2048
TYPICAL_OF = 256  # starting places of first touch that are looked at
BLOCK = 1 << TABLE_SHIFT


def layout_of(machine: Machine, workload: Workload, seed: int, duration_s: float, fold: int) -> Layout:
    """Sizes of a tenant's simulated address space.

    Raises:
        ScaleError: too few pages are left for a sample.
    """
    full = workload.full_pages()
    pages = -(-full // fold)
    pages = -(-pages >> workload.order()) << workload.order()
    if pages < LEAST_PAGES:
        fit = max(1, 1 << max(0, (full // LEAST_PAGES).bit_length() - 1))
        raise ScaleError(
            f"scale 1/{fold} leaves {pages} pages of {workload.footprint_gib:g} GiB; use --scale 1/{fit} or larger"
        )
    touches = simulated_touches(resolve_timing(machine, workload), workload, duration_s, fold)
    return Layout(full, pages, fold, seed, touches, duration_s)


def node_pages(machine: Machine, footprint_pages: int, place_all: str | None, fold: int) -> list[int]:
    """Simulated capacity of each node; nodes without a capacity get their share of the footprint.

    A bound that keeps all pages in one tier gets that tier enlarged to hold them.
    """
    sizes = []
    for index, (node, share) in enumerate(zip(machine.nodes, machine.node_shares(), strict=True)):
        if share is None:
            sizes.append(round((node.capacity_gib or 0) * (1 << 18)) // fold)
            continue
        whole = share * footprint_pages * (1.0 if index in machine.top_nodes else SLACK)
        mine = machine.top_nodes if place_all == "top" else machine.lower_nodes if place_all == "lower" else ()
        if index in mine:
            whole = max(whole, footprint_pages * SLACK / len(mine))
        sizes.append(int(whole) // fold)
    return [max(BLOCK, size) for size in sizes]


def check_folios(machine: Machine, workload: Workload) -> None:
    """Refuse folios that are modelled for later kernels alone.

    Raises:
        UsageError: folios between 4 KiB and 2 MiB, which anonymous memory has from 6.8 on and hint faults move from
            6.10 on (multi-size THP numa balancing), on an older one.
    """
    if 0 < workload.order() < HUGE_ORDER and not machine.kernel_at_least("6.10"):
        raise UsageError(
            f"{workload.name()}.page={workload.page}: folios mapped by PTEs are modelled as from Linux 6.10 on, not "
            f"{machine.kernel}; use --kernel 6.12 or page=4k"
        )


def mapping_ids(vma: Vma, order: int) -> int:
    """Ids of a mapping, of whole folios: PTEs, or with order 9 PMDs."""
    return vma.pages >> order if order == TABLE_SHIFT else -(-vma.pages >> order) << order


def memcgs(members: list[Workload]) -> list[int]:
    """The memcg of each tenant, numbered in order of appearance: those that name the same one share it."""
    names = [member.memcg or k for k, member in enumerate(members)]
    order = list(dict.fromkeys(names))
    return [order.index(name) for name in names]


def placement_of(workload: Workload, policy: Policy) -> str:
    """Where pages start: the policy's bound if it is one, else the workload's choice."""
    return {"top": "top", "lower": "lower", "truth": "truth"}.get(policy.place or "", workload.placement)


def build(
    machine: Machine, workload: Workload, policy: Policy, seed: int, duration_s: float, fold: int, options: Options
) -> System:
    """A system at virtual time 0, pages placed, kswapd ready, the policy not yet started."""
    members = workload.tenants()
    for member in members:
        check_folios(machine, member)
    layouts = [
        layout_of(machine, member, int(stream_key(seed, f"tenant {k}")) if k else seed, duration_s, fold)
        for k, member in enumerate(members)
    ]
    feeds = shared_feeds(members, layouts, options.chunk)
    vmas: list[tuple[int, int, bool, int, int]] = []
    firsts, groups = [], memcgs(members)
    for k, (member, layout) in enumerate(zip(members, layouts, strict=True)):
        firsts.append(sum(-(-pages // BLOCK) * BLOCK for pages, *_ in vmas))
        order = member.order()
        vmas += [(mapping_ids(vma, order), groups[k], vma.file, order, k) for vma in member.vmas(layout)]
    start = placement_of(workload, policy)
    footprint = sum(member.full_pages() for member in members)
    sizes = node_pages(machine, footprint, start if start in ("top", "lower") else None, fold)
    simulated = sum(layout.pages for layout in layouts)
    if sum(sizes) < simulated:
        has = " + ".join(
            f"{node.name} {size * fold / (1 << 18):.3g}" for node, size in zip(machine.nodes, sizes, strict=True)
        )
        raise CapacityError(f"footprint {footprint / (1 << 18):g} GiB does not fit {machine.name} ({has} GiB)")
    bloom = max(64, (1 << BLOOM_FILTER_SHIFT) // fold)
    settings = machine.sysctls
    tlb = new_tlb(settings["tlb/entries"], settings["tlb/ways"], bool(settings["tlb/shoot_all"]), fold, firsts)
    mm = new_mm(
        vmas, sizes, [node.tier for node in machine.nodes], max(groups) + 1, bloom, spare_mms=max(groups) + 1, tlb=tlb
    )
    tenants: list[Tenant] = []
    system = System(machine, mm, tenants, fold, seed, options.daemon_cpus, options.phases, max(groups) + 1)
    names = memcg_names(members)
    for k, (member, feed) in enumerate(zip(members, feeds, strict=True)):
        pages = (firsts[k + 1] if k + 1 < len(firsts) else len(mm.pte)) - firsts[k]
        timing = resolve_timing(machine, member)
        tenant = Tenant(k, names[k], member, timing, feed, firsts[k], pages, system)
        if member.busy_s > 0 and member.idle_s > 0:
            tenant.busy_touches = max(
                1, feed.layout.touch_at_s(member.busy_s * duration_s / simulated_span(member, duration_s))
            )
            tenant.idle_ps = int(member.idle_s * PS_PER_S)
        tenants.append(tenant)
    system.allocate_engine()
    set_watermarks(system)
    place_pages(system, start)
    system.mm.mms[:, MM_RAN:] = 1
    for node in range(len(sizes)):
        if mm.node[node, TIER] < mm.node[:, TIER].max():
            system.add(Kswapd(node))
    return system


def simulated_span(workload: Workload, duration_s: float) -> float:
    """Seconds of work, sleep left out, in a run of `duration_s`."""
    return duration_s * workload.busy_s / (workload.busy_s + workload.idle_s)


def place_pages(system: System, start: str) -> None:
    """Allocate all pages before access 0."""
    machine, mm = system.machine, system.mm
    zonelist = sorted(
        range(len(machine.nodes)),
        key=lambda k: (machine.nodes[k].tier, machine.nodes[k].read_ns[machine.cpu_nodes[0]], k),
    )
    if start == "lower":
        zonelist = [k for k in zonelist if k in machine.lower_nodes]
    order = side_by_side([first_touch_order(system, tenant) for tenant in system.tenants])
    if start in ("hot_on_lower", "truth"):
        heat = by_folio(mm, window_counts(system).sum(axis=0, dtype=np.int64))[order]
        first = hottest(heat if start == "truth" else -heat, top_leaves(system))
        if start == "truth" and mm.setting[LARGE_FOLIOS]:
            first = best_folios_first(mm, order, heat, first)
        order = np.concatenate([order[first], np.delete(order, first)])
    elif start == "random":
        order = system.rng("placement").permutation(order)
    where = " and ".join(
        f"{machine.nodes[k].name} ({mm.node[k, CAPACITY] * system.fold / (1 << 18):.3g} GiB)" for k in zonelist
    )
    place(mm, order, zonelist, where)


def best_folios_first(mm: Mm, order: np.ndarray, heat: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Of the places `first` in `order`, those of whole folios, hottest first: what finds no room above the low
    watermark is the coldest of them (a folio of 1 MiB may be a fiftieth of the top tier at scale).
    """
    first = first[np.isin(order[first], whole_folios(mm, order[first]))]
    return first[np.argsort(-heat[first], kind="stable")]


def memcg_names(members: list[Workload]) -> list[str]:
    """A name for each tenant's memcg: that of its workload, numbered from the second of a kind on."""
    names: list[str] = []
    for member in members:
        base = member.name().lstrip("_")
        taken = sum(name.partition("-")[0] == base for name in names)
        names.append(f"{base}-{taken + 1}" if taken else base)
    return names


def side_by_side(orders: list[np.ndarray]) -> np.ndarray:
    """One order of first touches out of several: the tenants start together,
    and each has touched the same share at any time.
    """
    if len(orders) == 1:
        return orders[0]
    done = np.concatenate([(np.arange(len(order)) + 0.5) / len(order) for order in orders])
    return np.concatenate(orders)[np.argsort(done, kind="stable")]


def first_touch_order(system: System, tenant: Tenant) -> np.ndarray:
    """The pages of a tenant in the order in which its initialisation touches them: its own, or that of addresses."""
    order = tenant.workload.init_order(tenant.feed.layout)
    if order is not None:
        leaves = order.astype(np.int64) >> tenant.feed.shift
        _, first = np.unique(leaves, return_index=True)
        return leaves[np.sort(first)] + tenant.first_page
    ids = np.concatenate(
        [np.arange(row[VMA_START], row[VMA_END]) for row in system.mm.vma if row[VMA_MM] == tenant.index]
    )
    if tenant.workload.scattered and system.fold > 1:
        return np.roll(ids, -typical_start(system, tenant))
    return ids


def typical_start(system: System, tenant: Tenant) -> int:
    """Where first touch starts in an address space whose pages lie in random order:
    at a place typical of the full size.

    A folded page stands for 1/scale pages of like rank, so where the hottest lands moves the top tier's share of
    touches by many points; at full size the law of large numbers leaves a point or two. Of 256 seeded starting places
    the one is taken whose share comes nearest to the top tier's share of pages.
    """
    heat = tenant.feed.truth().sum(axis=0, dtype=np.int64)[: tenant.feed.pages]
    n = len(heat)
    top = min(n, top_leaves(system) * n // sum(each.feed.pages for each in system.tenants))
    sums = np.concatenate([[0], np.cumsum(np.concatenate([heat, heat]))])
    use = f"first page of {tenant.name}" if tenant.index else "first page"
    starts = system.rng(use).integers(0, n, TYPICAL_OF)
    share = (sums[starts + top] - sums[starts]) / max(1, sums[n])
    return int(starts[int(np.argmin(np.abs(share - top / n)))])


def top_pages(system: System, tenant: int | None = None) -> int:
    """4 KiB pages resident on the top tier, of one tenant or of all."""
    total = 0
    rows = system.mm.vma if tenant is None else system.mm.vma[system.mm.vma[:, VMA_MM] == tenant]
    for first, last, order in rows[:, [VMA_START, VMA_END, VMA_LEAF_ORDER]]:
        node = system.mm.pte[first:last] & NODE_MASK
        total += int(np.isin(node, system.machine.top_nodes).sum()) << order
    return int(total)
