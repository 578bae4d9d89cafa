"""MGLRU's rows: generations, the density rule, what klruscand does to aging and aging to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from klrubench.engine.bits import ACCESSED, GEN_MASK, REFERENCED, WORKINGSET
from klrubench.mm import mglru
from klrubench.mm.mglru.aging import EEXIST, ERANGE, run_aging
from klrubench.mm.mglru.walk import N_WALK, SLOTS, YOUNG
from klrubench.mm.state import (
    MAX_NR_GENS,
    MAX_SEQ,
    MIN_SEQ_ANON,
    PGCARRIED,
    PTESCAN_SLOTS,
    PTESCAN_YOUNG,
)
from klrubench.simulate.system import Lruvec, System
from klrubench.validation.emulated import (
    PERIOD_S,
    TABLE,
    Script,
    between_passes,
    emulated,
    start,
    stat,
    touch,
    untouch,
    watch,
)
from klrubench.validation.finding import Finding, check, finding, holds, same
from klrubench.workload import Workload

FAST, SLOW = 0, 1
BATCH = 2 << 16
GROUP = "mglru"


def memory(pages: int, kernel: str = "6.18", **options: Any) -> System:
    """A system whose pages lie on the slow node with their accessed bits clear, nothing running."""
    system = start(workload=Script(pages, [], **options), machine=emulated(kernel=kernel), duration_s=1)
    untouch(system)
    return system


def age(system: System, node: int = SLOW, forced: bool = True) -> tuple[int, int] | None:
    """The debugfs command that ages a node's lruvec: (PTEs visited, found young), or None if it was refused."""
    walk = np.zeros(N_WALK, np.int64)
    refused = run_aging(system.mm, node, 0, node, forced, walk)
    return None if refused else (int(walk[SLOTS]), int(walk[YOUNG]))


def scan(system: System, batch: int = BATCH, between: Callable[[], None] | None = None) -> list[np.ndarray]:
    """One klruscand pass over the slow node: what each flush reports."""
    return list(flushes(system, mglru.WalkObject(), batch, between))


def flushes(
    system: System, walker: mglru.WalkObject, batch: int, between: Callable[[], None] | None = None, memcg: int = 0
) -> Iterator[np.ndarray]:
    """What each flush of a pass over one memcg's slow lruvec reports; `between` is called after each."""
    nodes = len(system.mm.node)
    for pages in mglru.flushes(system, Lruvec(memcg, SLOW, memcg * nodes + SLOW), batch, walker):
        if pages is not None and len(pages):
            yield pages.copy()
            if between is not None:
                between()


def seq(system: System, pages: Any = slice(None), node: int = SLOW) -> np.ndarray:
    """Sequence number of the generation that each page's flags name."""
    newest = int(system.mm.lru[node, MAX_SEQ])
    generation = (system.mm.folio[pages] & GEN_MASK).astype(np.int64) - 1
    return np.asarray(newest - (newest - generation) % MAX_NR_GENS)


@check("gen_target", GROUP)
def gen_target() -> Finding:
    """A page found accessed gets the max_seq of before the command."""
    shares, steps = [], []
    for kernel in ("6.1", "6.12"):
        system, pages = memory(8 * TABLE, kernel), np.arange(0, 8 * TABLE, 3)
        for _ in range(2):
            age(system)
        before = int(system.mm.lru[SLOW, MAX_SEQ])
        touch(system, pages)
        steps.append((age(system), int(system.mm.lru[SLOW, MAX_SEQ]) - before))
        shares.append(float((seq(system, pages) == before).mean()))
    return finding(
        f"max_seq before the command, {100 * min(shares):.2f}% of pages (6.1 and 6.12)",
        same("share of pages with the old max_seq", [1.0, 1.0], shares),
        same("PTEs visited and young, generations made", [((4096, 1366), 1)] * 2, steps),
    )


def untouched_history(kernel: str) -> tuple[list[tuple[list[int], int, int]], list[int]]:
    """Five aging commands over untouched pages: (their seqs, max_seq, min_seq) before each, pages carried by each."""
    system = memory(8 * TABLE, kernel)
    mm, seqs, carried = system.mm, [], []
    for _ in range(5):
        seqs.append((np.unique(seq(system)).tolist(), int(mm.lru[SLOW, MAX_SEQ]), int(mm.lru[SLOW, MIN_SEQ_ANON])))
        before = int(mm.stat[PGCARRIED])
        age(system)
        carried.append(int(mm.stat[PGCARRIED]) - before)
    return seqs, carried


@check("gen_untouched", GROUP)
def gen_untouched() -> Finding:
    """An untouched page keeps its seq; the oldest of four generations is carried to the next when max_seq advances."""
    parts = []
    for kernel in ("6.1", "6.12", "6.18"):
        # populating has put all in max_seq = 3 (up to 6.13) or in 2: the oldest of four once max_seq is 3 above it
        expected = [2, 2, 2, 3, 4] if kernel == "6.18" else [3, 3, 3, 3, 4]
        seqs, carried = untouched_history(kernel)
        oldest = [8 * TABLE if pages == [top - MAX_NR_GENS + 1] else 0 for pages, top, _ in seqs]
        parts.append(same(f"{kernel}: seq", [([page], 3 + k, k) for k, page in enumerate(expected)], seqs))
        parts.append(same(f"{kernel}: pages carried", oldest, carried))
    return finding("an untouched page keeps its seq; only the oldest of 4 generations is carried (all three)", *parts)


@check("gen_two_hit", GROUP)
def gen_two_hit() -> Finding:
    """6.18: the first walk that finds a page accessed only sets PG_referenced; the second moves it, a third too."""
    system = memory(8 * TABLE)
    mm, pages = system.mm, np.arange(0, 8 * TABLE, 5)
    flags, moved = [], []
    for _ in range(3):
        touch(system, pages)
        newest = int(mm.lru[SLOW, MAX_SEQ])
        age(system)
        flags.append({int(each) for each in mm.folio[pages] & (REFERENCED | WORKINGSET)})
        moved.append({int(value) - newest for value in seq(system, pages)})
    return finding(
        "first finding: PG_referenced, same generation; second and third: max_seq and PG_workingset",
        same("flags after each finding", [{REFERENCED}, {WORKINGSET}, {WORKINGSET}], flags),
        # relative to max_seq before the walk; populating has put them in max_seq - 1
        same("generation against max_seq", [{-1}, {0}, {0}], moved),
    )


@check("unforced_refused", GROUP)
def unforced_refused() -> Finding:
    """The debugfs command on a freshly filled lruvec, which has four generations."""
    codes = {}
    for kernel in ("6.1", "6.12", "6.18"):
        system = memory(8 * TABLE, kernel)
        codes[kernel] = run_aging(system.mm, SLOW, 0, SLOW, False, np.zeros(N_WALK, np.int64))
    names = {0: "accepted", ERANGE: "ERANGE", EEXIST: "EEXIST"}
    told = ", ".join(f"{names[code]} in {kernel}" for kernel, code in codes.items())
    return finding(told, same("answer", {"6.1": ERANGE, "6.12": ERANGE, "6.18": 0}, codes))


@check("bloom_threshold", GROUP)
def bloom_threshold() -> Finding:
    """The next unforced walk comes back to a table with 64 young PTEs of 512, not to one with 63."""
    system, young = memory(6 * TABLE), [64, 63, 64, 63, 65, 1]
    touch(system, np.concatenate([np.arange(n) + k * TABLE for k, n in enumerate(young)]))
    first = age(system)
    touch(system, np.arange(6 * TABLE))
    again = age(system, forced=False)
    found = (system.mm.pte & ACCESSED == 0).reshape(6, TABLE).all(axis=1).tolist()
    return finding(
        f"tables with {young} young PTEs: revisited {[n for n, yes in zip(young, found, strict=True) if yes]}",
        same("forced walk", (6 * TABLE, sum(young)), first),
        same("unforced walk", (3 * TABLE, 3 * TABLE), again),
        same("tables revisited", [n >= 64 for n in young], found),
    )


@check("klru_aging_blocked", GROUP)
def klru_aging_blocked() -> Finding:
    """Aging works before the first klruscand pass; after it the slow lruvec is frozen; the fast one ages on."""
    system = memory(8 * TABLE, "6.17")
    before = [age(system) is not None for _ in range(4)]
    frozen = int(system.mm.lru[SLOW, MAX_SEQ])
    scan(system)
    after = [age(system, forced=forced) is not None for forced in (True, False)]
    for _ in range(5):
        scan(system)
    later = age(system) is not None
    return finding(
        "max_seq frozen, forced and unforced aging refused after a pass; before it and on the fast node aging works",
        same("aging before the first pass", [True] * 4, before),
        same("forced, unforced after it, and after five more", [False] * 3, [*after, later]),
        same("max_seq", frozen, int(system.mm.lru[SLOW, MAX_SEQ])),
        same("aging of the fast node", [True] * 3, [age(system, FAST) is not None for _ in range(3)]),
    )


@check("klru_bloom_inert", GROUP)
def klru_bloom_inert() -> Finding:
    """An lruvec never aged: tables with 1 or 8 of 512 PTEs accessed are seen in every pass."""
    system = memory(64 * TABLE, "6.17")
    sparse = np.concatenate([[k * TABLE] if k % 2 else k * TABLE + np.arange(8) for k in range(64)])
    seen = []
    for _ in range(5):
        touch(system, sparse)
        seen.append(len(np.concatenate(scan(system))))
    return finding(
        f"{seen[-1]} of {len(sparse)} pages in sparse tables seen in each of 5 passes",
        same("pages seen in each pass", [len(sparse)] * 5, seen),
    )


@check("klru_bloom_frozen", GROUP)
def klru_bloom_frozen() -> Finding:
    """Aged while tables 0..31 were dense: 32..63 are never seen by klruscand, 0..31 visited even at 8 of 512."""
    system = memory(64 * TABLE, "6.17")
    dense, later = np.arange(32 * TABLE), np.arange(32 * TABLE, 64 * TABLE)
    touch(system, dense)
    age(system)
    blind, kept = [], []
    for _ in range(4):
        touch(system, later)
        blind.append(sum(map(len, scan(system))))
    sparse = (np.arange(32)[:, None] * TABLE + np.arange(8)).ravel()
    for _ in range(2):
        touch(system, sparse)
        touch(system, later)
        kept.append(bool(np.array_equal(np.concatenate(scan(system)), sparse)))
    return finding(
        f"{max(blind)} of {len(later)} pages seen in 4 passes; tables 0..31 seen at 8 of 512",
        same("pages of tables 32..63 seen", [0] * 4, blind),
        same("tables 0..31 seen whole and alone", [True] * 2, kept),
    )


class _Pair(Script):
    """Two programs of 32 tables, in a memcg each or in one together."""

    def __init__(self, together: bool) -> None:
        super().__init__(64 * TABLE, [])
        self.together = together

    def tenants(self) -> list[Workload]:
        """The older one, and the one that is born again."""
        programs: list[Workload] = [Script(32 * TABLE, []) for _ in range(2)]
        for program in programs:
            program.memcg = "one" if self.together else ""
        return programs


def newborn_passes(together: bool) -> list[list[int]]:
    """Pages of either program seen by passes before, with and after the birth of one; both were blind before.

    The newborn comes first where they have a memcg each, and joins the end of the list where they share one.
    """
    system = start(workload=_Pair(together), machine=emulated(kernel="6.17"), duration_s=1)
    untouch(system)
    memcgs, walk, born = (1 if together else 2), np.zeros(N_WALK, np.int64), 1 if together else 0
    for memcg in range(memcgs):  # aged with nothing dense before klruscand's first pass
        run_aging(system.mm, memcg * 2 + SLOW, memcg, SLOW, True, walk)
    everything, seen = np.arange(64 * TABLE), []
    for number in range(4):
        touch(system, everything)
        if number == 2:
            mglru.lru_gen_del_mm(system.mm, born)
            mglru.lru_gen_add_mm(system.mm, born, 0)
        walker = mglru.WalkObject()
        ids = [pages for memcg in range(memcgs) for pages in flushes(system, walker, BATCH, memcg=memcg)]
        found = np.concatenate([*ids, np.empty(0, np.uint32)])
        seen.append([int(np.count_nonzero(found // (32 * TABLE) == k)) for k in range(2)])
    return seen[1:]


@check("klru_force_newborn", GROUP)
def klru_force_newborn() -> Finding:
    """A new process makes the pass forced for what comes after it: a later memcg,
    not an older address space of its own.
    """
    whole, apart, together = 32 * TABLE, newborn_passes(False), newborn_passes(True)
    later, older = [of[1] for of in apart], [of[0] for of in together]
    return finding(
        f"later memcg: {later[0]}, {later[1]} of {whole}, {later[2]} seen before, with, after; older mm of the same "
        f"memcg: {older[1]}",
        same("pages of the later memcg seen before, with and after", [0, whole, 0], later),
        same("pages of the older address space of the same memcg", [0, 0, 0], older),
        same("pages of the newborn in its first pass", [whole, whole], [apart[1][0], together[1][1]]),
    )


@check("klru_force_keeps_pmd", GROUP)
def klru_force_keeps_pmd() -> Finding:
    """A forced pass leaves the PMD bits: the next one visits every table again,
    those after it only what was touched.
    """
    system, visited, touched = memory(64 * TABLE, "6.17"), [], np.arange(32 * TABLE)
    for _ in range(4):
        touch(system, touched)
        before = int(system.mm.stat[PTESCAN_SLOTS])
        scan(system)
        visited.append(int(system.mm.stat[PTESCAN_SLOTS]) - before)
    return finding(
        f"PTEs visited by the forced pass and the next three, half of the tables touched: {visited}",
        same("PTEs visited", [64 * TABLE, 64 * TABLE, 32 * TABLE, 32 * TABLE], visited),
    )


@check("klru_idle_mm", GROUP)
def klru_idle_mm() -> Finding:
    """An address space that did not run since the last pass is not walked; the first pass of all, forced, walks it."""
    system = start("klruscand", Script(64 * TABLE, []), duration_s=5, idle_s=5 * PERIOD_S + 1)
    walked = between_passes(system, stat(PTESCAN_SLOTS))
    asleep = np.diff(walked[:5]).tolist()
    return finding(
        f"PTEs visited in four passes while it sleeps: {sum(asleep)}; when it runs again: {walked[6] - walked[5]}",
        same("by the first pass", 64 * TABLE, walked[0]),
        same("while it sleeps", [0] * 4, asleep),
        holds("when it runs again", "walked", walked[6] > walked[5], walked[6] - walked[5]),
    )


@check("klru_pmd_steal_fast", GROUP)
def klru_pmd_steal_fast() -> Finding:
    """A klruscand pass hides touched fast pages from the fast node's unforced aging, not from a forced one."""
    pages = np.arange(32 * TABLE)

    def aged(*steps: str) -> tuple[Any, Any]:
        program = Script(64 * TABLE, [], placement="first_touch")
        system = start(workload=program, machine=emulated(kernel="6.17"), duration_s=1)
        untouch(system)
        for _ in range(2):
            scan(system)  # the first pass is forced
            age(system, FAST)  # and so is the first aging
            touch(system, pages)
        without = age(system, FAST, forced=False)
        touch(system, pages)
        scan(system)
        if "touch" in steps:
            touch(system, pages)
        return without, age(system, FAST, forced="force" in steps)

    all_of = (32 * TABLE, 32 * TABLE)
    seen = [aged(), aged("touch"), aged("force")]
    return finding(
        f"with a pass in between T={seen[0][1][0]} Y={seen[0][1][1]}; touched again or forced: all {32 * TABLE}",
        same("without the pass", [all_of] * 3, [without for without, _ in seen]),
        same(
            "after it, touched again, forced", [(0, 0), all_of, (64 * TABLE, all_of[1])], [after for _, after in seen]
        ),
    )


FILLER, SWEPT = 446 * TABLE, 376 * TABLE  # the mapping of 752 MiB begins 66 tables before a 1 GiB boundary


def edge_program() -> Script:
    """A mapping of 376 tables behind an untouched one, so that it crosses a 1 GiB boundary after its 66th table."""
    return Script(FILLER + SWEPT, [], vmas=(FILLER, SWEPT))


def edge_memory() -> System:
    """That program on a slow node that holds it, its accessed bits clear."""
    system = start(workload=edge_program(), machine=emulated(slow_pages=1 << 19, kernel="6.17"), duration_s=1)
    untouch(system)
    return system


@check("klru_edge_posted", GROUP)
def klru_edge_posted() -> Finding:
    """A forced pass over a freshly filled mapping, the program busy on the same CPU.

    The scheduler wants the CPU back at the 1 GiB boundary, the batch restarts empty there, and 256 dense tables later
    it ends exactly at a table's end, whereupon the rest is lost until the next pass.
    """
    machine = emulated(slow_pages=1 << 19, kernel="6.17")
    system = start("klruscand", edge_program(), machine=machine, duration_s=12, daemon_cpus="shared")
    system.mm.pte[:FILLER] &= np.uint8(0xFF ^ ACCESSED)
    reported = sorted({young for _, young in watch(system, 50, stat(PTESCAN_YOUNG))})[:3]
    return finding(
        f"reported so far: {reported[0]} at the 1 GiB boundary, {reported[1]} at the end of the pass, {reported[2]} "
        f"one later",
        same("pages reported", [66 * TABLE, 164_864, SWEPT], reported),
    )


@check("klru_duplicates", GROUP)
def klru_duplicates() -> Finding:
    """A region swept without pause: the full batch resumes at the first pending PMD, and 58 tables come twice."""
    system, swept = edge_memory(), np.arange(FILLER, FILLER + SWEPT)
    for _ in range(2):
        touch(system, swept)
        scan(system)
    touch(system, swept)
    reports = scan(system, between=lambda: touch(system, swept))
    pages, times = np.unique(np.concatenate(reports), return_counts=True)
    twice = int(np.count_nonzero(times == 2))
    return finding(
        f"{sum(map(len, reports))} reports, {twice} pages twice ({twice // TABLE} tables)",
        same("reports", 222_208, sum(map(len, reports))),
        same("pages reported twice", 29_696, twice),
        same("first batch", BATCH, len(reports[0])),
        holds("every page", "once or twice", np.array_equal(pages, swept) and times.max() == 2),
    )
