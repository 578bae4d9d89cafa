"""Folios that several PTEs map: records, kmigrated, placement, moves and prices, against plain Python."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folios import folios_of, ids_of, old_memory, on_top, span
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kmigrated import store, walk

from klrubench.engine.bits import GEN_MASK, NODE_MASK
from klrubench.engine.jit import njit
from klrubench.engine.kthread import charged_moves
from klrubench.mm.migrate import folio_price, move_many, promote_many
from klrubench.mm.pghot import FREQ_SHIFT, pghot_arrays
from klrubench.mm.pghot import record_pages as record_v2
from klrubench.mm.pghot_map import FORMATS, FREQ_FIELD, READY, record_pages
from klrubench.mm.pghot_v0 import record_pages as record_v0
from klrubench.mm.pghot_v0 import sweep_arrays
from klrubench.mm.pghot_v1 import NO_LIMIT, unpacked_arrays
from klrubench.mm.pghot_v1 import record_pages as record_v1
from klrubench.mm.state import (
    FIRST_FRAME,
    FREE,
    KMIGRATED_TAKEN,
    PGDEMOTE_KSWAPD,
    PGHOT_RECORDED,
    PGPROMOTE_SUCCESS,
    STACK_TOP,
    TAIL_FRAMES,
    WINDOW,
    Mm,
    new_mm,
)  # fmt: skip
from klrubench.simulate.placement import allocate
from klrubench.simulate.result import check_memory
from klrubench.simulate.system import System

HEADED = ["v3", "v5-compact", "v5-precise"]


# --- records ----------------------------------------------------------------------------------------------------------
def scattered(rng: np.random.Generator, order: int) -> Mm:
    """1024 pages: some folios on the top tier, some isolated, frames no longer in the order of pages."""
    mm = old_memory([(1024, 0, False, order)])
    heads = folios_of(mm)
    move_many(mm, rng.permutation(heads), 0, 1, True)
    move_many(mm, rng.permutation(heads), 1, 1, False)
    move_many(mm, rng.permutation(heads)[: len(heads) // 4], 0, 1, True)
    mm.folio[heads[rng.random(len(heads)) < 0.2]] &= 0xFF ^ GEN_MASK
    return mm


def recorded(mm: Mm, pages: np.ndarray) -> list[int]:
    """Those of the pages that count: on the lower tier, their folio on a list."""
    return [p for p in pages.tolist() if mm.pte[p] & NODE_MASK and mm.folio[span(mm, p)[0]] & GEN_MASK]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32), order=st.integers(1, 8), version=st.sampled_from(HEADED), threshold=st.integers(1, 3),
    share=st.sampled_from([0.05, 0.3, 1.0]),
)  # fmt: skip
def test_from_v3_on_young_ptes_of_a_pass_count_in_the_heads_record(
    seed: int, order: int, version: str, threshold: int, share: float
) -> None:
    """One pass, one jiffy: frequency = young PTEs of the folio, up to freq_max; ready from the threshold on."""
    rng = np.random.default_rng(seed)
    mm = scattered(rng, order)
    p, _ = store(version, mm, 128, threshold)
    young = np.flatnonzero(rng.random(1024) < share)
    seen: dict[int, int] = {}
    for page in recorded(mm, young):
        frame = int(mm.pfn[span(mm, page)[0]])
        seen[frame] = seen.get(frame, 0) + 1
    assert record_pages(p, mm, young.astype(np.uint32), -1, 5) == sum(seen.values()) == mm.stat[PGHOT_RECORDED]
    assert np.flatnonzero(p.record).tolist() == sorted(seen)
    most = FORMATS[version].freq_max
    assert {f: int(p.record[f] & FREQ_FIELD) for f in seen} == {f: min(n, most) for f, n in seen.items()}
    ready = [f for f in seen if p.record[f] & READY]
    assert ready == [f for f, n in seen.items() if min(n, most) >= threshold] and int(p.ready.sum()) == len(ready)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), order=st.integers(1, 8), share=st.sampled_from([0.1, 0.5, 1.0]))
def test_up_to_v2_each_young_pte_counts_for_its_own_frame(seed: int, order: int, share: float) -> None:
    """After one pass nothing is hot; after two the pages seen in both are, whatever else of their folios was young."""
    rng = np.random.default_rng(seed)
    mm = scattered(rng, order)
    frames, rule = len(mm.frame_page), [2, 5000, 0, 1]
    v2 = pghot_arrays(frames, 1, frames, np.array(rule, np.int64))
    v1 = unpacked_arrays(frames, 1, frames, np.array([*rule, NO_LIMIT, NO_LIMIT, 10_000], np.int64))
    v0 = sweep_arrays(frames, np.array([2, 5000, 0, 0, 0], np.int64))
    passes = [np.flatnonzero(rng.random(1024) < share).astype(np.uint32) for _ in range(2)]
    times: dict[int, int] = {}
    for number, young in enumerate(passes):
        now = 10 + 500 * number
        own = [int(mm.pfn[page]) for page in recorded(mm, young)]
        for frame in own:
            times[frame] = times.get(frame, 0) + 1
        for found in (
            record_v2(v2, mm, young, -1, now, False)[0],
            record_v1(v1, mm, young, -1, now, False)[0],
            record_v0(v0, mm, young, now)[0],
        ):
            assert found == len(own)
        known = [(v2.packed >> FREQ_SHIFT).tolist(), v1.record[:, 0].tolist(), v0.record[:, 0].tolist()]
        assert known == [[times.get(frame, 0) for frame in range(frames)]] * 3
        hot = sorted(frame for frame, n in times.items() if n == 2)
        for p in (v2, v1):
            assert sorted((p.heap[0, : p.heap_n[0]] & 0xFFFFFFFF).tolist()) == hot
        assert number or not hot


# --- kmigrated --------------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32), order=st.integers(1, 8), version=st.sampled_from(HEADED), share=st.floats(0, 0.4),
    top=st.sampled_from([512, 600, 4096]), fold=st.sampled_from([1, 128]),
)  # fmt: skip
def test_kmigrated_takes_a_folio_as_a_whole_at_its_heads_frame(
    seed: int, order: int, version: str, share: float, top: int, fold: int
) -> None:
    """Folios with two young PTEs, in the order of frames, while the top tier has room; one step a folio or free frame.

    The steps of a section are its share of the node's when the walk comes to it.
    """
    rng = np.random.default_rng(seed)
    mm = old_memory([(2048, 0, False, order)], top)
    p, last = store(version, mm, fold, 2)
    young = np.flatnonzero(rng.random(2048) < share)
    record_pages(p, mm, young.astype(np.uint32), -1, 5)
    size = 1 << order
    counts = np.bincount(young // size, minlength=2048 // size)
    hot = (np.flatnonzero(counts >= 2) * size).tolist()  # frames are in the order of pages
    room = top // size
    frame_of = {page: int(mm.pfn[page]) for page in hot}
    sections = range(last) if version == "v3" else {int(p.section_of[f]) for f in frame_of.values()}
    frames = 8192 if version == "v3" else sum(int(p.section[k, 1] - p.section[k, 0]) for k in sections)
    steps = [sum(part) for part in zip(*walk(p, mm, last, fold=fold), strict=True)]
    least, most = (frames * (8192 - n * (size - 1)) / 8192 for n in (2048 // size, 2048 // size - min(len(hot), room)))
    if fold == 1:
        assert steps[0] == least
    else:
        assert least - len(sections) <= steps[0] <= most
    assert steps[1:4] == [len(hot), min(len(hot), room), min(len(hot), room) * size]
    assert mm.stat[KMIGRATED_TAKEN] == len(hot) and not p.ready.any()
    assert [page for page in range(0, 2048, size) if on_top(mm, [page])[0]] == hot[:room]
    assert not p.record[list(frame_of.values())].any()
    check_memory(mm)


def test_a_ready_record_on_what_has_become_a_tails_frame_is_not_taken() -> None:
    """Of four folios of 16 KiB the second was hot; then its frames went to the inside of one of 64 KiB."""
    mm = old_memory([(16, 0, False, 2), (16, 0, False, 4)])
    big = int(mm.vma[1, 0])
    move_many(mm, np.array([big]), 0, 1, True)
    mm.node[1, [FREE, STACK_TOP]] = 0, 0  # no other frames than those set free below
    p, last = store("v3", mm, 1, 1)
    record_pages(p, mm, np.array([5], np.uint32), -1, 5)
    frame = int(mm.pfn[4])
    move_many(mm, np.array([0, 4, 8, 12]), 0, 1, True)
    move_many(mm, np.array([big]), 1, 1, False)
    assert span(mm, int(mm.frame_page[frame])) == span(mm, big) and mm.frame_page[frame] != big
    (step,) = walk(p, mm, last)
    assert step[1:4] == (0, 0, 0) and p.record[frame] & READY
    assert on_top(mm, span(mm, big)) == [False] * 16


# --- frames -----------------------------------------------------------------------------------------------------------
def check_tails(mm: Mm) -> None:
    """TAIL_FRAMES of each node: resident ids that are not the first of their folio."""
    tails = np.setdiff1d(ids_of(mm), folios_of(mm))
    assert mm.node[:, TAIL_FRAMES].tolist() == np.bincount(mm.pte[tails] & NODE_MASK, minlength=2).tolist()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32), orders=st.lists(st.sampled_from([0, 1, 2, 4, 7, 8, 9]), min_size=1, max_size=3),
    zonelist=st.sampled_from([[0, 1], [1, 0], [1]]), moves=st.integers(0, 8),
)  # fmt: skip
def test_folios_stay_whole_through_placement_and_moves(
    seed: int, orders: list[int], zonelist: list[int], moves: int
) -> None:
    """Placed in any order of pages and moved up and down: where all have one size, side by side and aligned."""
    rng = np.random.default_rng(seed)
    sizes = {9: 2}
    mm = new_mm([(sizes.get(order, 768), 0, False, order) for order in orders], [1800, 8192], [0, 1], 1, 64)
    mm.setting[WINDOW] = -1
    assert allocate(mm.address, rng.permutation(ids_of(mm)), np.array(zonelist)) == 0
    for _ in range(moves + 1):
        check_memory(mm)
        check_tails(mm)
        heads = folios_of(mm)
        assert (
            len(set(orders)) > 1
            or 9 in orders
            or all(
                mm.pfn[span(mm, h)].tolist() == list(range(int(mm.pfn[h]), int(mm.pfn[h]) + len(span(mm, h))))
                and (int(mm.pfn[h]) - int(mm.node[mm.pte[h] & NODE_MASK, FIRST_FRAME])) % len(span(mm, h)) == 0
                for h in heads.tolist()
            )
        )
        up = rng.random() < 0.5
        was, stat = np.count_nonzero(on_top(mm, heads)), mm.stat[[PGPROMOTE_SUCCESS, PGDEMOTE_KSWAPD]].copy()
        some = rng.permutation(heads)[: int(rng.integers(1, len(heads) + 1))]
        if rng.random() < 0.5:
            below = some[~np.array(on_top(mm, some))]
            folios, _ = promote_many(mm, (below + [rng.integers(len(span(mm, h))) for h in below]).astype(int), 0, 1)
            assert np.count_nonzero(on_top(mm, heads)) == was + folios
        else:
            folios, pages = move_many(mm, some, 0 if up else 1, 1, up)
            assert (mm.stat[[PGPROMOTE_SUCCESS, PGDEMOTE_KSWAPD]] - stat).tolist() == ([pages, 0] if up else [0, pages])


# --- prices -----------------------------------------------------------------------------------------------------------
@njit
def _priced(
    small: int, huge: int, pages: np.ndarray, events: np.ndarray, price_ps: np.ndarray, folios: int, total: int
) -> float:
    for k in range(len(pages)):
        pages[k] = folio_price(small, huge, pages[k])
    return charged_moves(events, price_ps, 0, 1, folios, total, 2)


@settings(deadline=None, max_examples=100)
@given(
    orders=st.lists(st.integers(0, 9), max_size=40), small=st.integers(1, 10**7), more=st.integers(0, 10**9),
)  # fmt: skip
def test_prices_lie_on_the_line_between_4_kib_and_2_mib(orders: list[int], small: int, more: int) -> None:
    """Exact at both ends, growing between them, and any mixture costs the sum of its folios, at any scale."""
    huge, pages = small + more, 1 << np.arange(10)
    line = small + more * (pages - 1) / 511
    each, events, price = pages.copy(), np.zeros(2, np.int64), np.array([small, huge], np.float64)
    folios, total = len(orders), int(pages[orders].sum())
    spent = _priced(small, huge, each, events, price, folios, total)
    assert each[[0, 9]].tolist() == [small, huge] and (np.diff(each) >= 0).all()
    assert ((line - 1 < each) & (each <= line)).all()
    assert spent == pytest.approx(2 * line[orders].sum(), rel=1e-9)
    assert events.sum() == folios
    system: Any = SimpleNamespace(fold=2, current=SimpleNamespace(spent_ps=0.0))
    system._price_ps = {"kpromoted_page": float(small), "migrate_2m": float(huge)}
    system.charge = partial(System.charge, system)
    System.charge_moves(system, "kpromoted_page", folios, total)
    assert system.current.spent_ps == pytest.approx(2 * line[orders].sum(), rel=1e-9)
