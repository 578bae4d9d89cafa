"""A last-level cache of lines: set-associative, least recently used out first, write-allocate.

It decides which touches of a recording reach memory. It is indexed with the addresses given (a recording has virtual
ones) and has no prefetcher, no other sharers and no instruction fetches, so its misses are those of the data of one
program alone.
"""

from __future__ import annotations

import re

import numpy as np

from klrubench.errors import ParameterError
from klrubench.trace.kernel import kernel

__all__ = ["LINE_BYTES", "LINE_SHIFT", "WAYS", "Llc", "parse_size_bytes", "touch_line"]

LINE_SHIFT = 6
LINE_BYTES = 1 << LINE_SHIFT
WAYS = 16
_MAX_BYTES = 1 << 34
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_ONE = np.uint64(1)


def parse_size_bytes(text: str) -> int:
    """Bytes of a size such as `2MiB`, `512K`, `1.5 GiB` or `65536` (units are powers of 1024); `none` and `off` are 0.

    Raises:
        ParameterError: it is no size.
    """
    words = text.strip().lower()
    if words in ("none", "off"):
        return 0
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kmg]?)(?:i?b)?", words)
    if match is None:
        raise ParameterError(f"'{text}' is no size: write 2MiB, 512KiB or none")
    return int(float(match[1]) * _UNITS[match[2]])


@kernel
def touch_line(tags: np.ndarray, line: np.uint64) -> int:
    """Touch a line of the cache; returns 1 for a miss, 0 for a hit.

    tags: u64 [sets, ways], most recent way first, each line + 1 (0: empty). line: u64 address >> 6.
    """
    ways = tags[line % np.uint64(tags.shape[0])]
    tag = line + _ONE
    if ways[0] == tag:
        return 0
    carried = ways[0]
    ways[0] = tag
    for way in range(1, ways.size):
        found = ways[way]
        ways[way] = carried
        if found == tag:
            return 0
        carried = found
    return 1


@kernel
def _touch_lines(tags: np.ndarray, lines: np.ndarray, missed: np.ndarray) -> None:
    for i in range(lines.size):
        missed[i] = touch_line(tags, lines[i])


class Llc:
    """State of a cache, all empty at first.

    Args:
        size_bytes: capacity; a multiple of ways x 64 bytes (the number of sets need not be a power of two).
        ways: lines a set.

    Raises:
        ParameterError: no such cache.

    Attributes:
        tags: u64 [sets, ways], the state that `touch_line` takes.
    """

    def __init__(self, size_bytes: int, ways: int = WAYS) -> None:
        sets, rest = divmod(size_bytes, ways * LINE_BYTES)
        if rest or not 0 < size_bytes <= _MAX_BYTES:
            legal = f"a multiple of {ways * LINE_BYTES} ({ways} ways of {LINE_BYTES}-byte lines) up to 16 GiB, or none"
            raise ParameterError(f"no last-level cache has {size_bytes} bytes: take {legal}")
        self.size_bytes, self.ways = size_bytes, ways
        self.tags = np.zeros((sets, ways), np.uint64)

    def touch(self, lines: np.ndarray) -> np.ndarray:
        """Touch lines (u64, address >> 6) in order; for each whether it missed."""
        missed = np.empty(lines.size, np.bool_)
        _touch_lines(self.tags, np.ascontiguousarray(lines, np.uint64), missed)
        return missed
