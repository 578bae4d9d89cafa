"""Replay: a pure function of seed and number that keeps every recorded count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from trace_fakes import random_trace, trace_of

from klrubench.errors import UsageError
from klrubench.trace import replay
from klrubench.trace.format import Trace
from klrubench.trace.replay import Replay, init_order, shares, stretch_note, stretch_of
from klrubench.workload import Layout

PAGE, CACHED, WRITE = 0x3FFFFFFF, 1 << 30, 1 << 31


def layout(pages: int, accesses: int, seed: int = 7, fold: int = 1) -> Layout:
    return Layout(pages * fold, pages, fold, seed, accesses, 60.0)


def touches(stream: Replay, count: int, first: int = 0) -> np.ndarray:
    out = np.empty(count, np.uint32)
    stream.fill(out, first)
    return out


def played(trace: Trace, cached_touches: int) -> tuple[np.ndarray, np.ndarray]:
    misses = trace.llc_misses.astype(np.int64)
    return misses, np.minimum(trace.reads.astype(np.int64) + trace.writes - misses, cached_touches)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 5000), st.integers(1, 3), st.lists(st.integers(1, 700), max_size=12))
def test_chunks_make_no_difference(seed: int, accesses: int, loops: int, chunks: list[int]) -> None:
    stream = Replay(random_trace(seed), layout(10 + 3 * seed, accesses, seed), loops)
    whole = touches(stream, accesses + 100)
    assert np.array_equal(whole[:100], whole[accesses:][:100]) or accesses < 100
    first = 0
    for chunk in [*chunks, 1, 7, 4096]:
        part = touches(stream, min(chunk, whole.size - first), first)
        assert np.array_equal(part, whole[first : first + part.size])
        first += part.size


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 3), st.integers(0, 4))
def test_whole_stretches_keep_every_count_exactly(seed: int, times: int, loops: int, cached_touches: int) -> None:
    trace = random_trace(seed)
    misses, hits = played(trace, cached_touches)
    total = int(misses.sum() + hits.sum())
    stream = Replay(trace, layout(trace.card.pages, total * times * loops, seed), loops, cached_touches)
    begin = 0
    for loop in range(loops):
        for epoch in range(trace.card.epochs):
            rows = trace.epoch == epoch
            words = touches(stream, times * int((misses + hits)[rows].sum()), begin)
            begin += words.size
            for flag, expected in ((0, misses[rows]), (CACHED, hits[rows])):
                found = np.bincount(words[(words & CACHED) == flag] & PAGE, minlength=trace.card.pages)
                assert np.array_equal(found[trace.page[rows]], times * expected), (loop, epoch, flag)
                assert found.sum() == times * expected.sum()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(200, 9000))
def test_any_stretch_keeps_counts_to_within_one_a_touch(seed: int, accesses: int) -> None:
    trace = random_trace(seed, epochs=1)
    misses, hits = played(trace, 1)
    words = touches(Replay(trace, layout(trace.card.pages, accesses, seed)), accesses)
    found = np.bincount(words & PAGE, minlength=trace.card.pages)[trace.page]
    exact = (misses + hits) * accesses / (misses + hits).sum()
    assert np.abs(found - exact).max() < 2


def test_the_share_of_writes_is_that_of_each_page() -> None:
    trace = trace_of([(0, 0, 10, 0, 10), (0, 1, 0, 10, 10), (0, 2, 30, 10, 20), (0, 3, 1, 3, 4)])
    words = touches(Replay(trace, layout(4, 44_000), cached_touches=0), 44_000)
    share = np.array([(words[(words & PAGE) == page] & WRITE != 0).mean() for page in range(4)])
    assert share[0] == 0
    assert share[1] == 1
    assert share[2:] == pytest.approx([0.25, 0.75], abs=0.051)  # to within one of 20, exact for 4


def test_a_hit_in_the_cache_is_played_at_most_so_often() -> None:
    trace = trace_of([(0, 0, 1000, 0, 5), (0, 1, 3, 0, 3)])
    words = touches(Replay(trace, layout(2, 10), cached_touches=2), 10)
    assert (
        sorted((int(word & PAGE), bool(word & CACHED)) for word in words)
        == [(0, False)] * 5 + [(0, True)] * 2 + [(1, False)] * 3
    )
    assert shares(trace, 2) == (pytest.approx(0.2), 1.0)


def test_order_within_an_epoch_is_random_and_by_seed() -> None:
    trace = trace_of([(0, page, 100, 0, 100) for page in range(64)])
    first, second = (touches(Replay(trace, layout(64, 6400, seed)), 6400) & PAGE for seed in (1, 2))
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first), np.sort(second))
    for words in (first, second):
        begin = np.bincount(words[:3200], minlength=64)
        # drawn without replacement: each count is hypergeometric, half of 100
        assert stats.chi2.sf(((begin - 50.0) ** 2 / 25).sum(), 63) > 1e-4
        table = np.histogram2d(words[:-1], words[1:], bins=8)[0]
        assert stats.chisquare(table.ravel()).pvalue > 1e-4


def test_each_bijection_is_one() -> None:
    for size in (1, 2, 3, 5, 16, 97, 1000, 4097):
        rows = int(np.ceil(np.sqrt(size)))
        out = np.empty(size, np.uint32)
        replay._shuffle(out, 0, size, rows, -(-size // rows), np.uint64(123456789123456789))
        assert np.array_equal(np.sort(out), np.arange(size))


def test_first_places_of_small_epochs_are_uniform() -> None:
    trace = trace_of([(0, page, 1, 0, 1) for page in range(30)])
    firsts = [int(touches(Replay(trace, layout(30, 30, seed)), 1)[0] & PAGE) for seed in range(1500)]
    assert stats.chisquare(np.bincount(firsts, minlength=30)).pvalue > 1e-4


@pytest.mark.parametrize("pages", [40 * 32, 1000, 40, 25, 7])
def test_stretched_pages_keep_the_shape_of_the_rates(pages: int) -> None:
    trace = random_trace(11, epochs=2)
    misses, hits = played(trace, 1)
    rate = np.bincount(trace.page, misses + hits, minlength=40)
    total, times = int(rate.sum()), 400
    words = touches(Replay(trace, layout(pages, total * times)), total * times)
    found = np.bincount(words & PAGE, minlength=pages)
    # the mass of page p lies evenly on [p, p + 1) x pages / 40
    edges = np.interp(np.arange(pages + 1) * 40 / pages, np.arange(41), np.concatenate([[0], np.cumsum(rate)])) * times
    assert stats.chisquare(found[np.diff(edges) > 0], np.diff(edges)[np.diff(edges) > 0]).pvalue > 1e-4
    assert found[np.diff(edges) == 0].sum() == 0


@pytest.mark.parametrize("pages", [40 * 8, 100, 40, 13])
def test_pages_begin_in_the_order_of_their_first_touch(pages: int) -> None:
    rows = [(epoch, page, 1, 0, 1) for epoch in range(5) for page in range(40) if page * 7 % 5 <= epoch]
    trace = trace_of(rows)
    order = init_order(trace, layout(pages, 100))
    assert np.array_equal(np.sort(order), np.arange(pages))
    if pages >= 40:
        first_epoch = (order * 40 // pages) * 7 % 5
        assert np.all(np.diff(first_epoch) >= 0)
    assert not np.array_equal(order, init_order(trace, layout(pages, 100, seed=8)))


def test_epochs_get_the_share_of_the_run_that_they_have_of_the_recording() -> None:
    trace = trace_of([(0, 0, 10, 0, 10), (1, 1, 30, 0, 30), (2, 2, 60, 0, 60)])
    words = touches(Replay(trace, layout(3, 1000), loops=2), 1000) & PAGE
    changes = np.flatnonzero(np.diff(words)) + 1
    assert changes.tolist() == [50, 200, 500, 550, 700]


def test_an_epoch_without_touches_takes_no_time() -> None:
    trace = trace_of([(0, 0, 5, 0, 5), (1, 1, 5, 0, 0), (2, 1, 5, 0, 5)], epochs=4)
    words = touches(Replay(trace, layout(2, 100), cached_touches=0), 100) & PAGE
    assert words.tolist() == [0] * 50 + [1] * 50


def test_a_run_shorter_than_the_recording_leaves_out_touches_evenly() -> None:
    trace = trace_of([(0, page, 1, 0, 1) for page in range(100)])
    seen = [np.bincount(touches(Replay(trace, layout(100, 25, s)), 25) & PAGE, minlength=100) for s in range(400)]
    assert np.max(seen) == 1
    total = np.sum(seen, axis=0)
    assert total.sum() == 10_000
    assert np.abs(total - 100).max() < 60  # about 9 of standard deviation


def test_nothing_to_replay_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nothing of the trace reaches memory: take cached_touches=1"):
        Replay(trace_of([(0, 0, 5, 0, 0)]), layout(1, 10), cached_touches=0)


def test_an_epoch_too_long_for_the_run_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="record with a shorter --epoch"):
        Replay(trace_of([(0, 0, 5, 0, 5)]), layout(1, 1 << 33))


def test_a_trace_with_too_many_touches_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_SLOTS", 1000)
    trace = random_trace(3, pages=100)
    stream = Replay(trace, layout(100, 20_000))
    assert stream._slots.size < 1100
    words = touches(stream, 20_000)
    misses, hits = played(trace, 1)
    rate = np.bincount(trace.page, misses + hits, minlength=100)
    assert np.corrcoef(rate, np.bincount(words & PAGE, minlength=100))[0, 1] > 0.9
    assert (words & CACHED != 0).mean() == pytest.approx(hits.sum() / (hits + misses).sum(), abs=0.04)


def test_the_stretch_is_in_full_size_numbers() -> None:
    trace = trace_of([(0, page, 4, 0, 2) for page in range(64)])
    for fold in (1, 32):
        stretch = stretch_of(trace, layout(2048 // fold, 64 * 4 * 3200 // fold, fold=fold), 1, 2)
        assert stretch.footprint == 32
        assert stretch.touches == 3200
        assert stretch.page_touches == 100
        assert stretch.cached_share == 0.5
    note = stretch_note("x", trace, layout(2048, 64 * 4 * 3200), 1, 2)
    for words in (
        "x: a rescaled real access pattern, never a timing of made-up",
        "64 recorded pages x32",
        "x100 touches a page",
        "50% served by the cache (at most 2 a page and epoch)",
        "the rate is chosen",
    ):
        assert words in note
