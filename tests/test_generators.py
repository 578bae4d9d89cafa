"""The generators' kernels against plain-Python twins, and their laws by chi-square."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from klrubench.engine import generate as kernels
from klrubench.engine.masim_config import parse_masim_config
from klrubench.engine.streams import head_ranks
from klrubench.errors import KlrubenchError, ParameterError, ScaleError, TraceFormatError
from klrubench.generate import (
    Part,
    PhaseStream,
    RangeStream,
    RecordStream,
    Scramble,
    SweepStream,
    ZipfSampler,
    ZipfStream,
    alias_table,
    hot_set,
    mark_writes,
    masim_stream,
    read_masim_config,
    scattered,
    stream_key,
    words,
    write_cut,
)
from klrubench.workload import Layout, Stream

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
PAGE = 0x3FFFFFFF


def layout(pages: int, fold: int = 1, seed: int = 7, accesses: int = 1 << 20, duration_s: float = 100.0) -> Layout:
    return Layout(pages * fold, pages, fold, seed, accesses, duration_s)


def touches(stream: Stream, count: int, first: int = 0) -> np.ndarray:
    out = np.empty(count, np.uint32)
    stream.fill(out, first)
    return out


def counts_of(stream: Stream, pages: int, count: int = 1 << 22, first: int = 0) -> np.ndarray:
    return np.bincount(touches(stream, count, first) & PAGE, minlength=pages)


def p_value(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(stats.chisquare(counts, expected * (counts.sum() / expected.sum())).pvalue)


# --- twins, in whole numbers of Python ---


def mix(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def naive_word(key: int, index: int) -> int:
    return mix((key + index * GOLDEN) & MASK)


def naive_second(word: int) -> int:
    return (word ^ word >> 32) * 0xD6E8FEB86659FD93 & MASK


def naive_write(second: int, cut: int) -> int:
    return int(((second ^ second >> 32) & 0xFFFFF) < cut) << 31


def naive_part(word: int, table: list[int]) -> int:
    slot = word * len(table) >> 64
    return slot if word % 2**32 < table[slot] >> 32 else table[slot] & 0xFFFF


def naive_ranges(parts: list[Part], key: int, index: int, origin: int) -> int:
    word = naive_word(key, index)
    second = naive_second(word)
    if len(parts) == 1:
        part = parts[0]
    elif len(parts) == 2 and not any(part.step for part in parts):
        part = parts[word % 2**32 >= round(parts[0].weight / sum(part.weight for part in parts) * 2**32)]
    else:
        part = parts[naive_part(word, [int(entry) for entry in alias_table([part.weight for part in parts])])]
    place = second * part.pages >> 64
    if part.step:
        place = int((index - origin) * part.step) % part.pages
    return part.first + place | naive_write(second, round((1 - part.read_share) * 2**20))


def naive_scramble(x: int, numbers: int, key: int) -> int:
    keys = [naive_word(key, i) >> 32 for i in range(3)]
    bits = (numbers - 1).bit_length()
    while True:
        for number, multiplier in enumerate((0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)):
            x = (x * multiplier + keys[number]) % (1 << bits)
            if number < 2:
                x ^= x >> max(1, (bits + 1) // 2)
        if x < numbers:
            return x


def naive_record(stream_layout: Layout, index: int, record_bytes: int, idle: float, cut: int, inserts: float) -> int:
    """A touch of a RecordStream, but for the draw of the rank, which has a twin of its own."""
    seed, fold = stream_layout.seed, stream_layout.fold
    pages = round(stream_layout.pages * (1 - idle / 100))
    records = pages * 4096 // record_bytes
    rank = np.empty(1, np.uint64)
    ZipfSampler(records * fold, 0.99, stream_key(seed, "touches")).fill(rank, index, 1, 0 if inserts else cut)
    write, record = int(rank[0]) >> 63 << 31, int(rank[0]) % 2**63
    if inserts:
        write = naive_write(naive_word(int(stream_key(seed, "writes")), index), cut)
        record = (int(index * (inserts * fold)) - (0 if write else record)) % (records * fold)
    head = 0 if inserts else head_ranks(stream_layout, records * fold, 0.99)
    folded = record % (head // fold) if record < head else record // fold
    page = naive_scramble(folded, records, int(stream_key(seed, "records"))) * record_bytes // 4096
    if pages < stream_layout.pages:
        page = naive_scramble(page, stream_layout.pages, int(stream_key(seed, "pages")))
    return page | write


_parts = st.builds(
    Part,
    weight=st.floats(0.01, 10),
    first=st.integers(0, 2**29),
    pages=st.integers(1, 2**29),
    read_share=st.sampled_from([0.0, 0.25, 0.95, 1.0]),
    step=st.sampled_from([0.0, 0.0, 0.0, 0.013, 1.0, 70.5]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(_parts, min_size=1, max_size=9), st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 99))
def test_ranges_equal_their_twin(parts: list[Part], seed: int, origin: int, after: int) -> None:
    where = layout(2**30, seed=seed)
    out = touches(RangeStream(where, parts, origin=origin), 600, origin + after)
    key = int(stream_key(seed, "touches"))
    assert out.tolist() == [naive_ranges(parts, key, origin + after + i, origin) for i in range(600)]


@settings(deadline=None, max_examples=60)
@given(
    pages=st.integers(100, 5000),
    fold=st.sampled_from([1, 2, 64]),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    record_bytes=st.sampled_from([64, 1000, 1024, 4096]),
    idle=st.sampled_from([0.0, 60.0, 99.0]),
    inserts=st.sampled_from([0.0, 0.00625, 0.3]),
)
def test_records_equal_their_twin(
    pages: int, fold: int, seed: int, first: int, record_bytes: int, idle: float, inserts: float
) -> None:
    where = layout(pages, fold, seed)
    out = touches(RecordStream(where, 0.99, record_bytes, idle, 0.75, inserts), 40, first)
    assert out.tolist() == [naive_record(where, first + i, record_bytes, idle, 1 << 18, inserts) for i in range(40)]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 64), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_a_sweep_equals_its_twin(pages: int, lines: int, seed: int, first: int) -> None:
    out = touches(SweepStream(layout(pages, seed=seed), lines, 0.25), 500, first)
    origin, key = int(stream_key(seed, "origin")) % pages, int(stream_key(seed, "writes"))
    for i, touch in enumerate(out.tolist(), first):
        assert touch == (origin + i // lines) % pages | naive_write(naive_word(key, i), round(0.75 * 2**20))


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_words_and_write_bits_equal_their_twins(key: int, first: int) -> None:
    naive = [naive_word(key, first + i) for i in range(50)]
    assert words(50, np.uint64(key), first).tolist() == naive
    out = np.arange(50, dtype=np.uint32)
    mark_writes(out, first, np.uint64(key), write_cut(0.7))
    assert out.tolist() == [i | naive_write(word, round(0.3 * 2**20)) for i, word in enumerate(naive)]


def test_records_to_pages_keeps_the_write_bit() -> None:
    ids = np.array([0, 3, 4, 2**31 - 1, 2**31 + 5], np.uint32)
    kernels.records_to_pages(ids, np.uint64(1024))
    assert ids.tolist() == [0, 0, 1, 2**29 - 1, 2**31 + 1]


# --- the scramble ---


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_a_scramble_is_a_bijection_and_equals_its_twin(numbers: int, seed: int) -> None:
    key = stream_key(seed, "pages")
    images = Scramble(numbers, key).permutation()
    assert np.array_equal(np.sort(images), np.arange(numbers))
    for x in range(0, numbers, 97):
        assert images[x] == naive_scramble(x, numbers, int(key))


@pytest.mark.parametrize("numbers", [2**31, 2**31 - 1, 2**30 + 1, 5])
def test_a_scramble_leaves_the_write_bit(numbers: int) -> None:
    scramble = Scramble(numbers, stream_key(1, "large"))
    ids = np.arange(min(numbers, 2000), dtype=np.uint32)
    marked = ids | np.uint32(1 << 31)
    scramble.apply(ids)
    scramble.apply(marked)
    assert ids.max() < numbers
    assert np.array_equal(marked, ids | np.uint32(1 << 31))
    assert ids[3] == naive_scramble(3, numbers, int(stream_key(1, "large")))


@pytest.mark.parametrize("pages", [1 << 16, 50_000])
@pytest.mark.parametrize("hot", [1 / 64, 1 / 8, 1 / 2])
def test_hot_pages_lie_as_a_random_permutation_would_lay_them(pages: int, hot: float) -> None:
    """The variance of the hot pages a 2 MiB range is that of drawing without putting back, over 40 seeds."""
    ratios = []
    for seed in range(40):
        images = Scramble(pages, stream_key(seed, "pages")).permutation()
        inside = np.bincount(images[: int(pages * hot)] // 512, minlength=pages // 512 + 1)[: pages // 512]
        variance = 512 * hot * (1 - hot) * (pages - 512) / (pages - 1)
        ratios.append(((inside - 512 * hot) ** 2).mean() / variance)
    assert 0.85 < np.mean(ratios) < 1.15
    assert min(ratios) > 0.4 and max(ratios) < 2


def test_impossible_scrambles_are_refused() -> None:
    for numbers in (0, 2**31 + 1):
        with pytest.raises(ValueError, match="numbers"):
            Scramble(numbers, stream_key(1, "bad"))


# --- seeds ---


def test_seeds_that_differ_by_the_increment_give_no_shifted_copy() -> None:
    first, second = (words(1000, stream_key(seed, "touches")) for seed in (1, 1 + GOLDEN))
    assert not np.isin(first, second).any()
    assert stream_key(1, "touches") != stream_key(1, "writes")
    assert stream_key(-1, "touches") == stream_key(2**64 - 1, "touches")


# --- laws ---


@pytest.mark.parametrize("pages", [1000, 4096, 100_003])
def test_one_range_is_uniform(pages: int) -> None:
    stream = RangeStream(layout(pages), [Part(1.0, 0, pages, 0.95)])
    assert p_value(counts_of(stream, pages), np.ones(pages)) > 1e-4


@pytest.mark.parametrize("order", [None, scattered])
def test_a_hot_set_takes_its_share_and_a_part_of_the_rest(order: Callable[[Layout], Scramble] | None) -> None:
    where = layout(3000)
    chosen = order(where) if order else None
    counts = counts_of(RangeStream(where, hot_set(where, 20, 0.0), chosen), 3000)
    law = np.full(3000, 0.1 / 3000)
    law[:600] += 0.9 / 600
    if chosen is not None:
        law[chosen.permutation()] = law.copy()
    assert p_value(counts, law) > 1e-4


def test_many_ranges_take_their_weights_and_writes() -> None:
    parts = [Part(weight, 100 * number, 100, number / 10) for number, weight in enumerate([5, 0, 1, 2, 4, 0.5, 7, 3])]
    out = touches(RangeStream(layout(800), parts), 1 << 22)
    law = np.repeat([part.weight / 100 for part in parts], 100)
    counts = np.bincount(out & PAGE, minlength=800)
    assert not counts[100:200].any()
    assert p_value(counts[law > 0], law[law > 0]) > 1e-4
    writes = np.bincount((out & PAGE)[out >> 31 == 1] // 100, minlength=8)
    for part, touched, written in zip(parts, counts.reshape(8, 100).sum(1), writes, strict=True):
        assert abs(written - touched * (1 - part.read_share)) <= 5 * math.sqrt(touched * 0.25)


def test_writes_do_not_depend_on_the_page() -> None:
    out = touches(RangeStream(layout(500), [Part(1.0, 0, 500, 0.7)]), 1 << 22)
    table = np.stack([np.bincount(out[out >> 31 == write] & PAGE, minlength=500) for write in (0, 1)])
    assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize(("read_share", "chances"), [(1.0, 0), (0.0, 1 << 20), (0.5, 1 << 19), (0.95, 52_429)])
def test_read_shares_are_exact_to_a_millionth(read_share: float, chances: int) -> None:
    assert write_cut(read_share) == chances
    out = touches(SweepStream(layout(64), 1, read_share), 1 << 20)
    written = int((out >> 31).sum())
    assert abs(written - chances) <= 5 * math.sqrt(chances * (1 - chances / 2**20))


def folded_law(where: Layout, ranks: int) -> np.ndarray:
    """Weights of the simulated ranks: the head dealt out in turn, `fold` neighbours in rank behind it."""
    law = np.arange(1, ranks + 1.0) ** -0.99
    head = head_ranks(where, ranks, 0.99)
    dealt = law[:head].reshape(where.fold, -1).sum(0) if head else law[:0]
    return np.concatenate([dealt, law[head:].reshape(-1, where.fold).sum(1)])


def test_zipf_pages_are_drawn_at_full_size_and_folded() -> None:
    """Behind the head page j has the ranks fold * j .. fold * j + fold - 1 of the full-size law,
    not rank j of a smaller one.
    """
    where = layout(1 << 12, fold=16)
    law = folded_law(where, 1 << 16)
    law[scattered(where).permutation()] = law.copy()
    assert p_value(counts_of(ZipfStream(where, 0.99, 0.95), 1 << 12, 1 << 23), law) > 1e-4


def page_rates(where: Layout, idle: float = 0.0) -> np.ndarray:
    """Each page's share of the touches when Zipf(0.99) records of 1 KiB lie scattered, from the law itself."""
    pages = round(where.pages * (1 - idle / 100))
    records = pages * 4
    law = folded_law(where, records * where.fold)
    law[Scramble(records, stream_key(where.seed, "records")).permutation()] = law.copy()
    rates = np.zeros(where.pages)
    rates[:pages] = law.reshape(-1, 4).sum(1) / law.sum()
    if idle:
        rates[scattered(where).permutation()] = rates.copy()
    return rates


@pytest.mark.parametrize("idle", [0.0, 60.0])
def test_records_share_pages(idle: float) -> None:
    where = layout(5000, fold=8)
    counts, law = counts_of(RecordStream(where, 0.99, 1024, idle, 0.95), 5000), page_rates(where, idle)
    assert not counts[law == 0].any()
    assert (law == 0).mean() == idle / 100
    assert p_value(counts[law > 0], law[law > 0]) > 1e-4


def hottest(rates: np.ndarray) -> list[float]:
    """Percent of the touches that go to the hottest 1, 10 and 33 % of the pages."""
    ranked = np.sort(rates)[::-1]
    return [100 * ranked[: int(len(ranked) * share)].sum() for share in (0.01, 0.10, 0.33)]


def test_page_skew_is_not_key_skew() -> None:
    """1 M records of 1 KiB, four a page, Zipf 0.99: the pages' shares of a published calculation, in percent."""
    assert hottest(page_rates(layout(250_000))) == pytest.approx([57.0, 75.5, 87.4], abs=0.15)


def test_folding_keeps_the_distribution_of_page_rates() -> None:
    whole = hottest(page_rates(layout(1 << 18)))
    for fold in (4, 32):
        assert hottest(page_rates(layout((1 << 18) // fold, fold))) == pytest.approx(whole, abs=0.2)


def test_idle_pages_lie_anywhere() -> None:
    counts = counts_of(RecordStream(layout(1 << 16), 0.0, 1024, 60.0, 1.0), 1 << 16)
    touched = (counts > 0).reshape(-1, 512).sum(1)
    assert touched.sum() == pytest.approx(0.4 * (1 << 16), abs=5)
    assert 0.6 < touched.var() / (512 * 0.4 * 0.6) < 1.6


def test_the_newest_records_are_the_hot_ones_and_age() -> None:
    """With one insert in 100 touches, a record is written when it is newest and is as hot as its age says."""
    where = layout(2048, seed=3)
    stream = RecordStream(where, 0.99, 4096, 0.0, 0.9, 0.01)
    images = Scramble(2048, stream_key(3, "records")).permutation()
    out = touches(stream, 100, 123_400)
    assert set(out[out >> 31 == 1] & PAGE) == {images[1234]}
    reads = touches(stream, 1 << 20)
    age = (np.arange(1 << 20) // 100 - np.argsort(images)[reads & PAGE]) % 2048
    counts = np.bincount(age[reads >> 31 == 0], minlength=2048)
    assert p_value(counts, np.arange(1, 2049.0) ** -0.99) > 1e-4


# --- chunks, phases ---


STREAMS: list[Callable[[Layout], Stream]] = [
    lambda where: ZipfStream(where, 0.99, 0.95),
    lambda where: RecordStream(where, 0.99, 1024, 60.0, 0.95),
    lambda where: RecordStream(where, 0.99, 1024, 0.0, 0.95, 0.00625),
    lambda where: RangeStream(
        where, [Part(1, 0, 1000), Part(2, 500, 900, 0.5), Part(1, 7, 99, 0, 1.5)], scattered(where)
    ),
    lambda where: SweepStream(where, 3, 0.5),
    lambda where: PhaseStream(
        where, [0.013, 0.007], lambda k, at: RangeStream(where, [Part(1, k % 99, 50)], origin=at)
    ),
]


@pytest.mark.parametrize("make", STREAMS)
@pytest.mark.parametrize("chunk", [1, 7, 4096, 65536])
def test_chunks_do_not_show(make: Callable[[Layout], Stream], chunk: int) -> None:
    where = layout(3000, fold=4)
    count, first = min(150_000, 300 * chunk), 1_000_003
    parts, stream = np.empty(count, np.uint32), make(where)
    for start in range(0, count, chunk):
        stream.fill(parts[start : start + chunk], first + start)
    assert np.array_equal(parts, touches(make(where), count, first))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 30), min_size=1, max_size=6).filter(lambda s: sum(s) > 0.5), st.integers(10, 100_000))
def test_phases_follow_each_other_without_gap(lengths_s: list[float], accesses: int) -> None:
    where = layout(64, accesses=accesses, duration_s=20.0)

    class Number:
        def __init__(self, phase: int, start: int) -> None:
            self.phase, self.begin = phase, start

        def fill(self, out: np.ndarray, first: int) -> None:
            assert self.begin <= first and len(out)
            out[:] = self.phase

    phases = touches(PhaseStream(where, lengths_s, Number), accesses)
    ends = np.cumsum([lengths_s[k % len(lengths_s)] for k in range(int(phases[-1]) + 1)])
    for phase in range(len(ends) - 1):
        assert abs(np.searchsorted(phases, phase, "right") - ends[phase] * accesses / 20.0) <= 0.5 + 1e-6


# --- masim configurations ---


GOOD = b"""#regions
a, 100, none
b, 300

# phases
first
1000
a, 1, 64, 3, ro
b, 1, 64, 1, wo

second
500
b, 0, 4096, 1
"""


def test_a_masim_configuration_is_followed() -> None:
    where = layout(4000, accesses=300_000, duration_s=3.0)
    out = touches(masim_stream(parse_masim_config(GOOD, "good"), where, 1.0), 300_000)
    first, second, again = out[:100_000], out[100_000:150_000], out[150_000:250_000]
    for phase in (first, again):
        in_a = (phase & PAGE) < 1000
        assert abs(in_a.mean() - 0.75) < 0.01
        assert np.array_equal(phase >> 31 == 1, ~in_a)
    assert np.array_equal(second, 1000 + np.arange(50_000) % 3000)


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (b"", "0 regions"),
        (b"a, 100\n", "no phase"),
        (b"a, 0\n\np\n1\na, 1, 1, 1\n", "line 1: bytes '0'"),
        (b"a, 1\na, 1\n\np\n1\na, 1, 1, 1\n", "line 2: 'a, 1' is not a new region"),
        (b"a, 100\n\np\n10\nb, 1, 64, 1\n", "line 5: no region 'b'"),
        (b"a, 100\n\np\n10\na, 1, 64\n", "line 5: 'a, 1, 64' is not"),
        (b"a, 100\n\np\n10\na, 2, 64, 1\n", "must be 1 \\(random\\)"),
        (b"a, 100\n\np\n10\na, 0, 0, 1\n", "stride '0'"),
        (b"a, 100\n\np\n10\na, 1, 64, -1\n", "weight '-1'"),
        (b"a, 100\n\np\n10\na, 1, 64, 0\n", "no pattern with a weight"),
        (b"a, 100\n\np\n10\na, 1, 64, 1, xx\n", "mode 'xx'"),
        (b"a, 100\n\np\nsoon\na, 1, 64, 1\n", "length in ms 'soon'"),
        (b"a, 100\n\np\n10\n", "needs a name"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"a, 1\n" * 300_000, "over 1048576 bytes"),
    ],
)
def test_a_bad_masim_configuration_is_named(bad: bytes, fault: str) -> None:
    with pytest.raises(TraceFormatError, match=fault) as raised:
        parse_masim_config(bad, "bad.cfg")
    assert "bad.cfg" in str(raised.value) and "\n" not in str(raised.value)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300) | st.text("ab,019.\n# -rw", max_size=200).map(str.encode))
def test_random_bytes_give_one_kind_of_error(content: bytes) -> None:
    try:
        config = parse_masim_config(content, "random")
    except TraceFormatError:
        return
    try:
        touches(masim_stream(config, layout(512), 0.5), 100)
    except KlrubenchError as error:
        assert isinstance(error, ScaleError)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(ParameterError, match="cannot read"):
        read_masim_config("/nonexistent/masim.cfg")
    with pytest.raises(ParameterError, match="cannot read"):
        read_masim_config("nul\0byte")
    with pytest.raises(ScaleError, match="region 'a'"):
        masim_stream(parse_masim_config(b"a, 1\nb, 9999\n\np\n1\na, 1, 1, 1\n", "x"), layout(512), 0.5)
    with pytest.raises(ParameterError, match="2\\^31"):
        RecordStream(layout(1 << 30), 0.99, 64, 0.0, 0.95)
    with pytest.raises(ParameterError, match="over 100 %"):
        hot_set(layout(512), 60, 0.0, moved=0.9)
