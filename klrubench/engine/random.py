"""Random numbers as a hash of a counter: number i of a stream is a pure function of (key, i).

The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) over a Weyl sequence. Two keys give two
windows of one sequence of period 2^64; keys are hashes of seed and name, so that the windows lie at random places: raw
seeds that differ by a small multiple of the increment would give copies shifted by a few numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np

from klrubench.engine.bits import WRITE_BIT
from klrubench.engine.jit import njit

__all__ = ["GOLDEN", "below", "is_write", "mark_writes", "mix64", "second_word", "stream_key", "words", "write_cut"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
WRITE, READ = np.uint32(WRITE_BIT), np.uint32(0)
WRITE_BITS = 20
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_SECOND = np.uint64(0xD6E8FEB86659FD93)
_HALF, _LOW32 = np.uint64(32), np.uint64((1 << 32) - 1)
_WRITE_MASK = np.uint64((1 << WRITE_BITS) - 1)


def stream_key(seed: int, name: str) -> np.uint64:
    """The key of the sub-stream `name` of a run with that 64-bit `seed`; different names are independent."""
    text = (seed & (2**64 - 1)).to_bytes(8, "little") + name.encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


def write_cut(read_share: float) -> np.uint64:
    """The number of 2^20 equal chances that are writes: `read_share` exact to 2^-21, and exact at 0 and 1."""
    return np.uint64(round((1.0 - read_share) * (1 << WRITE_BITS)))


@njit
def mix64(z: np.uint64) -> np.uint64:
    """The SplitMix64 finaliser: a bijection of u64 in which each input bit moves each output bit."""
    z = (z ^ (z >> _SHIFT_1)) * _MULTIPLY_1
    z = (z ^ (z >> _SHIFT_2)) * _MULTIPLY_2
    return z ^ (z >> _SHIFT_3)


@njit
def second_word(word: np.uint64) -> np.uint64:
    """A second word out of a hashed one at a third of the price; its top bits depend on all of the first."""
    return (word ^ (word >> _HALF)) * _SECOND


@njit
def is_write(second: np.uint64, cut: np.uint64) -> np.bool:
    """Whether the touch with that second word is a write: chance `cut` / 2^20, independent of the word's top bits."""
    return ((second ^ (second >> _HALF)) & _WRITE_MASK) < cut


@njit
def below(word: np.uint64, limit: np.uint64) -> np.uint64:
    """A uniform number under `limit` (< 2^32): floor(word * limit / 2^64), in 32-bit halves, which vectorise."""
    return ((word >> _HALF) * limit + (((word & _LOW32) * limit) >> _HALF)) >> _HALF


@njit
def _fill_words(out: np.ndarray, first: np.uint64, key: np.uint64) -> None:
    base = key + first * GOLDEN
    for i in range(out.size):
        out[i] = mix64(base + np.uint64(i) * GOLDEN)


@njit
def _mark_writes(out: np.ndarray, first: np.uint64, key: np.uint64, cut: np.uint64) -> None:
    base = key + first * GOLDEN
    for i in range(out.size):
        out[i] |= WRITE if is_write(mix64(base + np.uint64(i) * GOLDEN), cut) else READ


def words(count: int, key: np.uint64, first: int = 0) -> np.ndarray:
    """Numbers `first` .. `first + count - 1` of a stream, u64."""
    out = np.empty(count, np.uint64)
    _fill_words(out, np.uint64(first), key)
    return out


def mark_writes(out: np.ndarray, first: int, key: np.uint64, cut: np.uint64) -> None:
    """Set bit 31 of touches `first`, `first + 1`, ... in `out` (u32), each with chance `cut` / 2^20."""
    if cut:
        _mark_writes(out, np.uint64(first), key, cut)
