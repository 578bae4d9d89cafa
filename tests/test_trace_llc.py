"""The last-level cache and the collector, against plain-Python twins."""

from __future__ import annotations

from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_fakes import collected

from klrubench.errors import ParameterError, TraceFormatError
from klrubench.trace.collect import Collector
from klrubench.trace.llc import LINE_BYTES, Llc, parse_size_bytes


class TwinCache:
    """Least recently used, a dictionary a set."""

    def __init__(self, sets: int, ways: int) -> None:
        self.ways = ways
        self.sets: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(sets)]

    def touch(self, line: int) -> bool:
        held = self.sets[line % len(self.sets)]
        missed = line not in held
        held[line] = None
        held.move_to_end(line)
        if len(held) > self.ways:
            held.popitem(last=False)
        return missed


@settings(deadline=None)
@given(
    st.integers(1, 7),
    st.sampled_from([1, 2, 16]),
    st.lists(st.integers(0, 100) | st.integers(2**58 - 40, 2**58 - 1), max_size=400),
)
def test_cache_equals_its_twin(sets: int, ways: int, lines: list[int]) -> None:
    twin, cache = TwinCache(sets, ways), Llc(sets * ways * LINE_BYTES, ways)
    half = len(lines) // 2
    missed = [*cache.touch(np.array(lines[:half], np.uint64)), *cache.touch(np.array(lines[half:], np.uint64))]
    assert missed == [twin.touch(line) for line in lines]


def test_a_loop_one_line_too_long_for_a_set_always_misses() -> None:
    cache = Llc(16 * LINE_BYTES)
    assert cache.touch(np.tile(np.arange(17, dtype=np.uint64), 5)).all()
    assert cache.touch(np.tile(np.arange(100, 116, dtype=np.uint64), 5)).sum() == 16


@pytest.mark.parametrize(
    ("text", "size"),
    [("2MiB", 2 << 20), ("2m", 2 << 20), ("1.5 GiB", 3 << 29), ("512kb", 1 << 19), ("4096", 4096), ("none", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "2TiB", "-1", "two", "1e6", "MiB", "2MiBs", "9" * 400])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ParameterError, match="is no size: write 2MiB"):
        parse_size_bytes(text)


@pytest.mark.parametrize("size", [1000, 1, 1 << 40, 0])
def test_caches_that_cannot_be(size: int) -> None:
    with pytest.raises(ParameterError, match=f"no last-level cache has {size} bytes"):
        Llc(size)


@pytest.mark.parametrize("length", [0, 999, 10**9])
def test_epochs_that_cannot_be(length: int) -> None:
    with pytest.raises(ParameterError, match="epoch"):
        Collector(None, length)


Access = tuple[str, int, int]
Rows = dict[tuple[int, int], list[int]]


def collect_twin(accesses: list[Access], epoch_length: int, cache: TwinCache | None) -> Rows:
    """Reads, writes and misses by (epoch, page number)."""
    rows: Rows = {}
    by_instructions = accesses[0][0] == "I"
    clock = 0
    for kind, address, size in accesses:
        is_unit = (kind == "I") == by_instructions
        epoch = (clock if is_unit else max(clock - 1, 0)) // epoch_length
        if kind != "I":
            for line in range(address // 64, (address + size - 1) // 64 + 1):
                row = rows.setdefault((epoch, line // 64), [0, 0, 0])
                row[0] += kind in "LM"
                row[1] += kind in "SM"
                row[2] += cache.touch(line) if cache else 1 + (kind == "M")
        clock += is_unit
    return rows


kinds = st.sampled_from("IILSM")
addresses = st.integers(0, 40_000) | st.integers(2**47, 2**47 + 9000) | st.just(2**64 - 4096)
access = st.tuples(kinds, addresses, st.sampled_from([1, 8, 32, 100, 4096]))


@settings(deadline=None, max_examples=60)
@given(st.lists(access, min_size=1, max_size=80), st.booleans(), st.lists(st.integers(0, 5000), max_size=3))
def test_collecting_equals_its_twin(some: list[Access], filtered: bool, cuts: list[int]) -> None:
    accesses = some * 40  # several epochs
    if all(kind == "I" for kind, _, _ in accesses):
        accesses.append(("L", 0, 1))
    text = "".join(f"{'I ' if kind == 'I' else ' ' + kind} {address:08x},{size}\n" for kind, address, size in accesses)
    trace = collected(text.encode(), Llc(16 * 16 * 64) if filtered else None, 1000, [c for c in cuts if c < len(text)])
    expected = collect_twin(accesses, 1000, TwinCache(16, 16) if filtered else None)
    pages = sorted({page for _, page in expected})
    numbered = {(epoch, pages.index(page)): tuple(counts) for (epoch, page), counts in expected.items()}
    found = zip(*(column.tolist() for column in trace.columns().values()), strict=True)
    assert {(epoch, page): tuple(counts) for epoch, page, *counts in found} == numbered
    assert trace.card.accesses == sum(kind != "I" for kind, _, _ in accesses)
    assert trace.card.extents == sum(page - 1 not in pages for page in pages)
    by_instructions = accesses[0][0] == "I"
    assert trace.card.time_base == ("instructions" if by_instructions else "accesses")
    assert trace.card.instructions == (Counter(kind for kind, _, _ in accesses)["I"] if by_instructions else 0)


def test_more_pages_than_the_first_table_holds() -> None:
    text = b"".join(b" S %x,8\n" % (page * 4096 * 3) for page in range(30_000))
    trace = collected(text + text, None, 50_000)
    assert trace.card.pages == trace.card.extents == 30_000
    assert trace.page.tolist() == [*range(30_000), *range(20_000, 30_000)]
    assert int(trace.writes.sum()) == 60_000


def test_nothing_is_no_trace() -> None:
    with pytest.raises(TraceFormatError, match="no memory accesses"):
        collected(b"")
