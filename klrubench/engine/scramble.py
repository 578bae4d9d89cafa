"""Scatter numbers over their own range: a keyed bijection of 0 .. n - 1, computed and not stored.

On 2^k numbers: three odd multiples with a keyed constant each, and a folded shift between them; every step can be
undone. The multipliers are fixed ones that are known to mix well (those of MurmurHash3 and xxHash); drawn at random, a
few in a hundred leave the hot numbers visibly clustered. For other n the power of two above is used, and a number that
lands outside goes round again until it lands inside (cycle walking), which keeps it a bijection.
"""

from __future__ import annotations

import math

import numpy as np

from klrubench.engine.bits import WRITE_BIT
from klrubench.engine.jit import njit
from klrubench.engine.random import words

__all__ = ["MAX_NUMBERS", "Scramble"]

MAX_NUMBERS = 1 << 31
BLOCK = 2048
_WRITE, _NUMBER = np.uint32(WRITE_BIT), np.uint32(WRITE_BIT - 1)
_MULTIPLY_1, _MULTIPLY_2, _MULTIPLY_3 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35), np.uint32(0x27D4EB2F)
_STRAY_SHARE = 1 / 20
_Keys = tuple[np.uint32, np.uint32, np.uint32]


@njit
def _permute(x: np.uint32, keys: _Keys, mask: np.uint32, fold: np.uint32) -> np.uint32:
    x = np.uint32(x * _MULTIPLY_1 + keys[0]) & mask
    x ^= x >> fold
    x = np.uint32(x * _MULTIPLY_2 + keys[1]) & mask
    x ^= x >> fold
    return np.uint32(x * _MULTIPLY_3 + keys[2]) & mask


@njit
def _apply(ids: np.ndarray, keys: _Keys, mask: np.uint32, fold: np.uint32, numbers: np.uint32, rounds: int) -> None:
    # A whole round on every element is cheaper than a branch on some; the rounds leave at most 5 % to the last loop.
    for start in range(0, ids.size, BLOCK):
        block = ids[start : start + BLOCK]
        for i in range(block.size):
            block[i] = _permute(block[i] & _NUMBER, keys, mask, fold) | (block[i] & _WRITE)
        for _ in range(rounds):
            for i in range(block.size):
                x = block[i] & _NUMBER
                block[i] = (x if x < numbers else _permute(x, keys, mask, fold)) | (block[i] & _WRITE)
        if numbers <= mask:
            _walk_strays(block, keys, mask, fold, numbers)


@njit
def _walk_strays(ids: np.ndarray, keys: _Keys, mask: np.uint32, fold: np.uint32, numbers: np.uint32) -> None:
    for i in range(ids.size):
        x = ids[i] & _NUMBER
        if x >= numbers:
            while x >= numbers:
                x = _permute(x, keys, mask, fold)
            ids[i] = x | (ids[i] & _WRITE)


class Scramble:
    """A bijection of 0 .. `numbers` - 1 chosen by `key`.

    Args:
        numbers: 1 to 2^31.
        key: names the bijection (`stream_key`).
    """

    def __init__(self, numbers: int, key: np.uint64) -> None:
        if not 1 <= numbers <= MAX_NUMBERS:
            raise ValueError(f"numbers {numbers} must be 1 to 2^31")
        bits = (numbers - 1).bit_length()
        self.numbers = numbers
        first, second, third = (np.uint32(word >> 32) for word in words(3, key).tolist())
        self._keys: _Keys = (first, second, third)
        self._mask = np.uint32((1 << bits) - 1)
        self._fold = np.uint32(max(1, (bits + 1) // 2))
        self._rounds = _rounds(numbers / (1 << bits))

    def apply(self, ids: np.ndarray) -> None:
        """Replace each number in `ids` (u32, under `numbers`; bit 31 is left as it is) by its image."""
        _apply(ids, self._keys, self._mask, self._fold, np.uint32(self.numbers), self._rounds)

    def permutation(self) -> np.ndarray:
        """The images of 0 .. `numbers` - 1, u32."""
        ids = np.arange(self.numbers, dtype=np.uint32)
        self.apply(ids)
        return ids


def _rounds(inside: float) -> int:
    """Whole rounds after the first that leave at most one number in 20 outside."""
    return 0 if inside == 1 else max(0, math.ceil(math.log(_STRAY_SHARE) / math.log(1 - inside)) - 1)
