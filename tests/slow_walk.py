"""The page-table walk in plain Python, by the entry: what the compiled walk must equal."""

from __future__ import annotations

import numpy as np

from klrubench.engine.bits import ACCESSED, IDLE, NODE_MASK, PMD_OLD, REFERENCED, WORKINGSET, YOUNG
from klrubench.mm.mglru.walk import AGAIN_FULL, AGAIN_VISIT, DONE
from klrubench.mm.state import BLOOM_A, BLOOM_OWN_A, MAX_SEQ, NR_PAGES, TWO_STEP, Mm

NODES, BITS = 3, 256  # of the small memory that the walk is tried on
GIB = 1 << 18


class SlowWalk:
    """One walk over one address space, by the entry; it shares only the page states it starts from with the kernel.

    Args:
        repaired: side effects of the posted walk that this one does not have: "edge", "resume", "pmd", "steal",
            "bloom".
        own_seq: number of the filter that is read without the effect "bloom".
    """

    def __init__(
        self, mm: Mm, vmas: np.ndarray, memcg: int, node: int, force: bool, repaired: frozenset[str], batch: int,
        reach: int = 0, own_seq: int = 0,
    ) -> None:  # fmt: skip
        self.pte, self.folio = mm.pte.tolist(), mm.folio.tolist()
        self.vmas = [row for row in vmas.tolist() if row[2] == memcg]
        lruvec, flags, rows = memcg * NODES + node, BLOOM_A, 0
        if "bloom" in repaired:
            flags, rows = BLOOM_OWN_A, 2 * len(mm.lru)
        self.row, self.seq = mm.lru[lruvec].tolist(), int(mm.lru[lruvec, MAX_SEQ])
        self.filters = [
            set(np.flatnonzero(mm.bloom[rows + 2 * lruvec + k]).tolist()) if mm.lru[lruvec, flags + k] else None
            for k in range(2)
        ]
        self.filter_seq = own_seq if "bloom" in repaired else self.seq
        self.node, self.force, self.repaired, self.batch = node, force, repaired, batch
        self.two_step = bool(mm.setting[TWO_STEP])
        self.reach = reach  # at scale: ids that are cleared together, instead of 66 PMDs
        self.at, self.young, self.total = 0, 0, 0  # where to go on; density of the table at hand
        self.foreign = False  # the table at hand has accessed pages that are not this node's
        self.slots = self.fast = self.seen = self.pmds = self.lost = 0
        self.out: list[int] = []
        self.last = -1  # folio that the run of PTEs at hand belongs to

    def touch(self, page: int, huge: bool) -> None:
        self.pte[page] |= ACCESSED
        if not huge:
            self.mark_table(page >> 9, old=False)

    def mark_table(self, table: int, old: bool) -> None:
        for page in range(table << 9, (table + 1) << 9):
            self.pte[page] = self.pte[page] | PMD_OLD if old else self.pte[page] & ~PMD_OLD

    @staticmethod
    def bits_of(table: int) -> tuple[int, int]:
        x = (table + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        x ^= x >> 31
        return x % BITS, (x >> 15) % BITS

    def may_be_dense(self, table: int) -> bool:
        bits = self.filters[self.filter_seq % 2]
        return bits is None or set(self.bits_of(table)) <= bits

    def observe(self, page: int, pages: int, file: int) -> None:
        """An access that a page table shows: first mark the folio, then move it to the youngest generation."""
        flags, old = self.folio[page], (self.folio[page] & 7) - 1
        if self.two_step and not flags & (REFERENCED | WORKINGSET):
            self.folio[page] |= REFERENCED
            return
        flags = flags & ~REFERENCED | WORKINGSET if self.two_step else flags & ~(REFERENCED | WORKINGSET)
        new = self.seq % 4
        self.folio[page] = flags & ~7 | new + 1
        self.row[NR_PAGES + 2 * old + file] -= pages
        self.row[NR_PAGES + 2 * new + file] += pages

    def visit(self, page: int, order: int, file: int) -> bool:
        """One present entry; True if it filled the batch."""
        self.slots += 1
        head = page if order == 9 else page >> order << order
        if not self.pte[page] & ACCESSED:
            return False
        if self.pte[page] & NODE_MASK != self.node or not self.folio[head] & 7:
            self.fast += 1
            self.foreign = True
            return False
        self.pte[page] &= ~ACCESSED
        self.seen += 1
        if "steal" in self.repaired:
            self.folio[head] = (self.folio[head] | YOUNG) & ~IDLE
        if head != self.last:
            self.observe(head, 1 << order, file)
            self.last = head
        if self.batch:
            self.out.append(page)
        return bool(self.batch) and len(self.out) == self.batch

    def step(self) -> int:
        """Go on to the end of a 1 GiB range, a full batch or the end of the address space."""
        for start, end, _, file, order, _, leaf in self.vmas:
            if end <= self.at:
                continue
            here = max(start, self.at)
            span = 1 << 9 if leaf else GIB
            stop = min(end, (here // span + 1) * span)
            full = self.huge_range(here, stop, file) if leaf else self.table_range(here, stop, order, file)
            if full:
                return DONE if self.at < 0 else AGAIN_FULL
            self.at = stop
            return AGAIN_VISIT
        return DONE

    def huge_range(self, here: int, stop: int, file: int) -> bool:
        for page in range(here, stop):
            self.last = -1
            full = self.visit(page, 9, file)
            self.foreign = False  # a PMD that maps a page has no table below it
            if full:
                self.at = page + 1
                return True
        return False

    def table_range(self, here: int, stop: int, order: int, file: int) -> bool:
        first: int | None = None  # address of the first PMD whose accessed bit waits to be cleared
        waiting: list[int] = []
        done: set[int] = set()  # tables that were visited to their end and have no foreign page left accessed

        def clear(tables: list[int]) -> None:
            for other in tables:
                if "pmd" not in self.repaired or other in done:
                    self.mark_table(other, old=True)

        while here < stop:
            table = here >> 9
            end = min(stop, (table + 1) << 9)
            self.pmds += 1
            alone = False
            if not self.force:
                if self.pte[table << 9] & PMD_OLD:
                    here = end
                    continue
                if self.reach and first is not None:
                    first += (here - first) // self.reach * self.reach
                    clear([t for t in waiting if (t + 1) * 512 <= first])
                    waiting = [t for t in waiting if (t + 1) * 512 > first]
                    if not waiting:
                        first = None
                if self.reach:
                    first = here if first is None else first
                    waiting.append(table)
                elif first is None:
                    first = here
                elif table - (first >> 9) <= 64:
                    waiting.append(table)
                else:  # one too far: all are cleared, itself too, and none waits
                    clear([first >> 9, *waiting, table])
                    first, waiting, alone = None, [], True
                if not self.may_be_dense(table):
                    here = end
                    continue
            page, full, self.last = here, False, -1
            while page < end and not full:
                before = self.seen
                full = self.visit(page, order, file)
                self.total += 1
                self.young += self.seen - before
                page += 1
            back = [] if first is None else waiting if self.reach else [first >> 9, *waiting]
            if full and page < end and (first is None or "resume" in self.repaired):
                clear([other for other in back if other != table])
                self.at = page
                return True
            if page == end and not self.foreign:
                done.add(table)
                clear([table] if alone else [])
            following = self.filters[(self.filter_seq + 1) % 2]
            if self.young * 8 >= self.total and following is not None:
                following.update(self.bits_of(table))
            self.young, self.total, self.foreign = 0, 0, False
            if full:
                if self.reach and first is not None:
                    first += (page - 1 - first) // self.reach * self.reach
                if first is None:
                    self.at = end if "edge" in self.repaired else -1
                elif "resume" in self.repaired:
                    clear(back)
                    self.at = end
                else:
                    self.at = first
                self.lost += self.at < 0
                return True
            here = end
        if first is not None:
            clear(waiting if self.reach else [first >> 9, *waiting])
        return False
