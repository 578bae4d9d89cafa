"""Alias tables (Walker 1977, Vose 1991): a choice by weight with two look-ups, whatever the number of choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from klrubench.engine.jit import njit

__all__ = ["MAX_CHOICES", "alias_table", "pick", "slot_shift"]

CUT_BITS = 32
MAX_CHOICES = 1 << 16
_HALF, _LOW16, _LOW32 = np.uint64(32), np.uint64((1 << 16) - 1), np.uint64((1 << 32) - 1)


@njit
def pick(word: np.uint64, table: np.ndarray, shift: np.uint64) -> np.uint64:
    """The choice that a hashed word makes: its top bits name the slot, its low 32 bits are held against the cut."""
    slot = word >> shift
    entry = table[slot]
    return slot if (word & _LOW32) < (entry >> _HALF) else (entry & _LOW16)


def slot_shift(table: np.ndarray) -> np.uint64:
    """How far a word is shifted so that its top bits name a slot of `table`."""
    return np.uint64(65 - table.size.bit_length())


def alias_table(weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """The table that draws choice i in proportion to `weights[i]`, to within 2^-32 of a slot.

    Slot b, drawn uniformly, keeps its own choice when 32 fresh random bits are under `table[b] >> 32`, and else takes
    choice `table[b] & 0xffff`.

    Args:
        weights: not negative, not all 0, at most 65,536 of them.

    Returns:
        u64[K] with K the power of two from 2 upwards that holds all choices; the padding is never drawn.
    """
    share = np.asarray(weights, np.float64)
    if not 0 < share.size <= MAX_CHOICES or not np.isfinite(share).all() or share.min() < 0 or share.sum() <= 0:
        raise ValueError("weights must be 1 to 65536 finite numbers >= 0, not all 0")
    slots = max(2, 1 << (share.size - 1).bit_length())
    return _pair(_whole_parts(share, slots))


def _whole_parts(share: np.ndarray, slots: int) -> list[int]:
    """Each choice's part of slots * 2^32 as whole numbers; the largest takes what rounding leaves."""
    total = slots << CUT_BITS
    parts = [int(part) for part in np.floor(share / share.sum() * total)] + [0] * (slots - share.size)
    parts[int(np.argmax(share))] += total - sum(parts)
    return parts


def _pair(parts: list[int]) -> np.ndarray:
    """Fill each slot that is too empty from one that is too full; whole numbers, so that nothing is lost on the way."""
    full = 1 << CUT_BITS
    table = np.arange(len(parts), dtype=np.uint64)
    small = [slot for slot, part in enumerate(parts) if part < full]
    large = [slot for slot, part in enumerate(parts) if part > full]
    while small:
        slot, donor = small.pop(), large[-1]
        table[slot] = np.uint64(parts[slot] << CUT_BITS | donor)
        parts[donor] -= full - parts[slot]
        if parts[donor] <= full:
            large.pop()
            if parts[donor] < full:
                small.append(donor)
    return table
