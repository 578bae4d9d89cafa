"""The Zipf sampler against the law itself, and against a plain-Python twin that shares no code with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from klrubench.engine.alias_table import alias_table
from klrubench.engine.random import stream_key
from klrubench.engine.zipf_sampler import MAX_RANKS, ZipfSampler

MASK = 2**64 - 1
SETTINGS = [(n, s) for n in (7, 1000, 65536, 65537, 100000) for s in (0.5, 0.99, 1.0, 1.2)]


def chi_square_p(counts: np.ndarray, expected: np.ndarray, least: float = 20.0) -> float:
    """The p-value of counts against expectations; neighbours are pooled until `least` are expected."""
    edges = [0]
    pooled = np.cumsum(expected)
    while (following := int(np.searchsorted(pooled, (pooled[edges[-1] - 1] if edges[-1] else 0) + least)) + 1) < len(
        expected
    ):
        edges.append(following)
    seen, hoped = np.add.reduceat(counts, edges), np.add.reduceat(expected, edges)
    hoped = hoped * seen.sum() / hoped.sum()
    return float(stats.chi2.sf(((seen - hoped) ** 2 / hoped).sum(), len(seen) - 1))


def draw(sampler: ZipfSampler, count: int, first: int = 0, **kwargs: int) -> np.ndarray:
    out = np.empty(count, np.uint32)
    sampler.fill(out, first, **kwargs)
    return out


@pytest.mark.parametrize(("ranks", "exponent"), SETTINGS)
def test_ranks_follow_the_law(ranks: int, exponent: float) -> None:
    """Each rank, forty groups of ranks (which see an exponent off by 0.002), the last rank (which sees a wrong n)."""
    counts = np.zeros(ranks)
    sampler = ZipfSampler(ranks, exponent, stream_key(11, f"{ranks} {exponent}"))
    for block in range(16):
        counts += np.bincount(draw(sampler, 1 << 20, block << 20), minlength=ranks)
    law = np.arange(1, ranks + 1.0) ** -exponent
    expected = law / law.sum() * counts.sum()
    assert chi_square_p(counts, expected) > 1e-4
    assert chi_square_p(counts, expected, least=counts.sum() / 40) > 1e-4
    assert abs(counts[-1] - expected[-1]) < 5 * math.sqrt(expected[-1])


def test_the_law_holds_over_2_to_the_36_ranks() -> None:
    """Too many to count one by one: single ranks up to 1000, then 256 equal parts an octave."""
    ranks, exponent = 1 << 36, 0.99
    edges = np.concatenate(
        [np.arange(1, 1024), *[(1 << k) + (np.arange(256) << (k - 8)) for k in range(10, 36)], [ranks]]
    )
    power = 1 - exponent  # the integral from half before to half behind is exact to 1e-8 from rank 1024 on
    parts = ((edges[1:] - 0.5) ** power - (edges[:-1] - 0.5) ** power) / power
    parts[:1023] = np.arange(1, 1024.0) ** -exponent
    sampler = ZipfSampler(ranks, exponent, stream_key(5, "large"))
    out = np.empty(1 << 22, np.uint64)
    sampler.fill(out, 0)
    assert out.max() < ranks
    counts = np.histogram(out.astype(np.int64) + 1, edges)[0]
    assert chi_square_p(counts, parts / parts.sum() * counts.sum()) > 1e-4


def test_writes_have_their_share_whatever_the_rank() -> None:
    sampler = ZipfSampler(1000, 0.99, stream_key(3, "writes"))
    out = draw(sampler, 1 << 22, cut=round(0.3 * 2**20))
    table = np.stack([np.bincount(out[out >> 31 == write] & 0x7FFFFFFF, minlength=1000) for write in (0, 1)])
    assert abs(table[1].sum() / table.sum() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / table.sum())
    assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("chunk", [1, 7, 4096, 65536])
def test_chunks_do_not_show(chunk: int) -> None:
    sampler = ZipfSampler(1 << 23, 0.99, stream_key(3, "chunks"))
    count = min(70_000, 500 * chunk)
    whole, parts = draw(sampler, count, 10**12, fold=8, cut=1 << 19), np.empty(count, np.uint32)
    for start in range(0, count, chunk):
        sampler.fill(parts[start : start + chunk], 10**12 + start, 8, 1 << 19)
    assert np.array_equal(whole, parts)


def test_folding_keeps_the_draw() -> None:
    sampler = ZipfSampler(1 << 20, 0.99, stream_key(1, "fold"))
    assert np.array_equal(draw(sampler, 10_000, fold=16), draw(sampler, 10_000) >> 4)


@pytest.mark.parametrize(("ranks", "exponent"), [(0, 1.0), (MAX_RANKS + 1, 1.0), (10, -0.1), (10, math.nan)])
def test_impossible_laws_are_refused(ranks: int, exponent: float) -> None:
    with pytest.raises(ValueError, match="ranks"):
        ZipfSampler(ranks, exponent, stream_key(1, "bad"))


# --- the twin: whole numbers of Python, one draw at a time, bins by arithmetic ---


def mix(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def naive_bin(number: int) -> tuple[int, int]:
    """First rank and length of bin `number`: 1, 2, .. 63, then 64 strips an octave."""
    if number < 63:
        return number + 1, 1
    octave, strip = divmod(number - 63, 64)
    return (64 + strip) << octave, 1 << octave


def naive_draw(index: int, key: int, table: list[int], ranks: int, exponent: float) -> tuple[int, int]:
    """Rank from 0 and the 20 bits that decide about a write."""
    word = mix(key + index * 0x9E3779B97F4A7C15 & MASK)
    writes = None
    while True:
        slot = word * len(table) >> 64
        number = slot if word % 2**32 < table[slot] >> 32 else table[slot] & 0xFFFF
        second = (word ^ word >> 32) * 0xD6E8FEB86659FD93 & MASK
        if writes is None:
            writes = (second ^ second >> 32) & 0xFFFFF
        first, length = naive_bin(number)
        rank = first + (second * length >> 64)
        chance = ((word >> 32 & 0xFFFF) + (mix(second) >> 11) * 2.0**-53) / 65536
        if rank <= ranks and chance < (rank / first) ** -exponent:
            return rank - 1, writes
        word = mix(word + 0x9E3779B97F4A7C15 & MASK)


@settings(deadline=None, max_examples=60)
@given(
    ranks=st.integers(1, 300) | st.integers(1, MAX_RANKS),
    exponent=st.floats(0, 3),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
)
def test_equals_its_plain_twin(ranks: int, exponent: float, seed: int, first: int) -> None:
    key = stream_key(seed, "twin")
    sampler = ZipfSampler(ranks, exponent, key)
    out = np.empty(600, np.uint64)
    sampler.fill(out, first, 1, 1 << 18)
    table = sampler_table(ranks, exponent)
    for offset in range(len(out)):
        rank, writes = naive_draw(first + offset, int(key), table, ranks, exponent)
        assert int(out[offset]) == rank | int(writes < 1 << 18) << 63


def sampler_table(ranks: int, exponent: float) -> list[int]:
    bins, number = [], 0
    while naive_bin(number)[0] <= ranks:
        bins.append(naive_bin(number))
        number += 1
    weights = np.exp([math.log2(length) * np.log(2.0) - exponent * np.log(first) for first, length in bins])
    return [int(entry) for entry in alias_table(weights)]


# --- the alias table ---


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200).filter(lambda weights: sum(weights) > 1e-3))
def test_an_alias_table_holds_the_weights(weights: list[float]) -> None:
    table = alias_table(weights)
    chances = np.zeros(len(table))
    for slot, entry in enumerate(int(entry) for entry in table):
        chances[slot] += (entry >> 32) / 2**32
        chances[entry & 0xFFFF] += 1 - (entry >> 32) / 2**32
    wanted = np.array(weights) / sum(weights)
    assert np.abs(chances[: len(weights)] / len(table) - wanted).max() < 1e-9
    assert not chances[len(weights) :].any()


@pytest.mark.parametrize("weights", [[], [0.0], [-1.0, 2.0], [math.inf], [1.0] * 65_537])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        alias_table(weights)
