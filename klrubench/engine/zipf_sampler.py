"""Zipf's law, exact for any number of ranks and any exponent, in constant memory: strips, alias table, squeeze.

Ranks 1 .. 63 are bins of their own, and each octave [2^k, 2^(k+1)) above is cut into 64 equal strips. A bin is drawn
from an alias table by its envelope (length times the chance of its first rank), a rank uniformly inside it, and the
rank is kept with chance (rank / first rank of the bin)^-s. A 16-bit number below the smallest such chance of the bin
settles 99 % of the draws; the others take the exact test, and a refused one draws again from a hash of its own bits. So
draw i is a function of (key, i) alone. What is not exact: a bin's chance, to 2^-32 of a slot of the table.

A draw spends one hashed word w and a product v of it:

    w: 63..52 slot (the top bits that the table needs) | 47..32 squeeze | 31..0 cut of the alias table
    v: top bits, place in the bin | the 20 bits of `is_write`
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from klrubench.engine.alias_table import alias_table, pick, slot_shift
from klrubench.engine.jit import njit
from klrubench.engine.random import GOLDEN, is_write, mix64, second_word

__all__ = ["MAX_RANKS", "ZipfSampler"]

MAX_RANKS = 1 << 40
BLOCK = 512
SINGLES = 64
_STRIPS_LOG = 6

# a bin as one word: first rank << 22 | log2 of its length << 16 | squeeze
_FIRST, _LENGTH = np.uint64(22), np.uint64(16)
_LENGTH_MASK, _LOW16 = np.uint64((1 << 6) - 1), np.uint64((1 << 16) - 1)
_ONE, _HALF, _SIXTY_THREE = np.uint64(1), np.uint64(32), np.uint64(63)
_FRACTION = np.uint64(11)
_UNIT = 2.0**-53


@njit
def _rank(chosen: np.uint64, place: np.uint64) -> np.uint64:
    """The rank, from 1, at a uniform place inside a bin."""
    length = (chosen >> _LENGTH) & _LENGTH_MASK
    return (chosen >> _FIRST) + ((place >> _ONE) >> (_SIXTY_THREE - length))


@njit
def _folded(rank: np.uint64, fold: np.uint64, head: np.uint64) -> np.uint64:
    """The simulated rank: ranks below `head` (a power of two, or 0) are dealt out in turn,
    the others share with neighbours.
    """
    return rank & ((head >> fold) - _ONE) if rank < head else rank >> fold


@njit
def _kept(chance: float, rank: float, first: float, exponent: float) -> bool:
    """Whether `chance` < (rank / first)^-exponent; two Taylor polynomials enclose the power and mostly spare it."""
    step = (rank - first) / first
    below = 1.0 - exponent * step
    if chance < below:
        return True
    if chance > below + 0.5 * exponent * (exponent + 1.0) * step * step:
        return False
    return chance < (rank / first) ** -exponent


@njit
def _exact_rank(
    word: np.uint64, table: np.ndarray, bins: np.ndarray, shift: np.uint64, ranks: np.uint64, exponent: float
) -> np.uint64:
    """The rank, from 1, of a draw whose first word is `word`: the exact test, and new words until one is kept."""
    while True:
        chosen, place = bins[pick(word, table, shift)], second_word(word)
        rank = _rank(chosen, place)
        squeeze = (word >> _HALF) & _LOW16
        if squeeze < (chosen & _LOW16):
            return rank
        chance = (np.float64(squeeze) + np.float64(mix64(place) >> _FRACTION) * _UNIT) / 65536.0
        if rank <= ranks and _kept(chance, np.float64(rank), np.float64(chosen >> _FIRST), exponent):
            return rank
        word = mix64(word + GOLDEN)


@njit
def _fill(
    out: np.ndarray,
    first: np.uint64,
    key: np.uint64,
    table: np.ndarray,
    bins: np.ndarray,
    shift: np.uint64,
    ranks: np.uint64,
    exponent: float,
    fold: np.uint64,
    head: np.uint64,
    cut: np.uint64,
    top_bit: np.uint64,
) -> None:
    # Passes over a block that stays in the L1 cache: LLVM vectorises each but the look-ups, and none of one fused loop.
    drawn = np.empty(BLOCK, np.uint64)
    chosen = np.empty(BLOCK, np.uint64)
    doubtful = np.zeros(BLOCK, np.uint8)
    doubtful_words = doubtful.view(np.uint64)
    for start in range(0, out.size, BLOCK):
        block = out[start : start + BLOCK]
        base = key + (first + np.uint64(start)) * GOLDEN
        for i in range(block.size):
            drawn[i] = mix64(base + np.uint64(i) * GOLDEN)
        for i in range(block.size):
            chosen[i] = bins[pick(drawn[i], table, shift)]
        for i in range(block.size):
            place = second_word(drawn[i])
            block[i] = _folded(_rank(chosen[i], place) - _ONE, fold, head) | (
                np.uint64(is_write(place, cut)) << top_bit
            )
            doubtful[i] = ((drawn[i] >> _HALF) & _LOW16) >= (chosen[i] & _LOW16)
        for q in range((block.size + 7) // 8):
            if doubtful_words[q]:
                for i in range(q * 8, min(q * 8 + 8, block.size)):
                    if doubtful[i]:
                        rank = _exact_rank(drawn[i], table, bins, shift, ranks, exponent)
                        write = np.uint64(is_write(second_word(drawn[i]), cut))
                        block[i] = _folded(rank - _ONE, fold, head) | (write << top_bit)


def _strips(ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """First rank (from 1) and log2 of the length of each bin that holds one of the ranks 1 .. `ranks`."""
    octaves = max(0, ranks.bit_length() - _STRIPS_LOG)
    first = np.concatenate(
        [np.arange(1, SINGLES)] + [np.arange(SINGLES, 2 * SINGLES) << octave for octave in range(octaves)]
    )
    length_log = np.concatenate([np.zeros(SINGLES - 1, np.int64), np.repeat(np.arange(octaves), SINGLES)])
    inside = first <= ranks
    return first[inside], length_log[inside]


@lru_cache(maxsize=32)
def _tables(ranks: int, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """Alias table over the bins, and the packed bins (u64[K] each)."""
    first, length_log = _strips(ranks)
    last = first + (1 << length_log) - 1
    table = alias_table(np.exp(length_log * np.log(2.0) - exponent * np.log(first)))
    least = np.floor((last / first) ** -exponent * 65536.0)
    squeeze = np.where(last > ranks, 0, np.minimum(least, 65535)).astype(np.uint64)
    bins = np.zeros(table.size, np.uint64)
    bins[: first.size] = first.astype(np.uint64) << _FIRST | length_log.astype(np.uint64) << _LENGTH | squeeze
    return table, bins


class ZipfSampler:
    """Ranks 0 .. `ranks` - 1 with chances in proportion to (rank + 1)^-exponent.

    Args:
        ranks: 1 to 2^40.
        exponent: 0 (uniform) to 16; 0.99 is YCSB's.
        key: the sub-stream that is drawn from (`stream_key`).
    """

    def __init__(self, ranks: int, exponent: float, key: np.uint64) -> None:
        if not 1 <= ranks <= MAX_RANKS or not 0 <= exponent <= 16:
            raise ValueError(f"ranks {ranks} must be 1 to 2^40 and exponent {exponent} 0 to 16")
        self.ranks, self.exponent, self.key = ranks, float(exponent), key
        self._table, self._bins = _tables(ranks, float(exponent))
        self._shift = slot_shift(self._table)

    def fill(self, out: np.ndarray, first: int, fold: int = 1, cut: int | np.uint64 = 0, head: int = 0) -> None:
        """Write draws `first`, `first + 1`, ... into `out`.

        Args:
            out: u32 or u64, C-contiguous; wide enough for `ranks` / `fold`.
            fold: power of two; each draw is rank // fold.
            head: power of two above `fold`, or 0; ranks below it are dealt out instead, rank % (head / fold).
            cut: chance, in 2^-20, that the top bit of an element is set (a write).
        """
        words: tuple[Any, ...] = (self._table, self._bins, self._shift, np.uint64(self.ranks), self.exponent)
        top_bit = np.uint64(8 * out.itemsize - 1)
        _fill(
            out,
            np.uint64(first),
            self.key,
            *words,
            np.uint64(fold.bit_length() - 1),
            np.uint64(head),
            np.uint64(cut),
            top_bit,
        )
