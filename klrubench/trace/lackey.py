"""Reader of valgrind lackey text (`--tool=lackey --trace-mem=yes`).

    I  0401ab70,3       an instruction, 3 bytes long (counted; its fetch is not a data access)
     L 04222cac,8       a load of 8 bytes
     S 1fff000778,8     a store
     M 0421c7cc,4       a load and a store of the same bytes

Lines that begin with `==`, `--`, `**` or `ve` (its library vex) are valgrind's own messages and `SB` lines are
superblocks: all are passed over. The text comes in chunks that may be cut anywhere; a compiled loop reads 20 to 30
million lines a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from klrubench.errors import TraceFormatError
from klrubench.trace.kernel import kernel

__all__ = ["INSTRUCTION", "LOAD", "MODIFY", "STORE", "Events", "LackeyParser"]

INSTRUCTION, LOAD, STORE, MODIFY = 0, 1, 2, 3
MAX_ACCESS_BYTES = 4096
EVENTS_AT_ONCE = 1 << 16
MAX_LINE_BYTES = 1 << 20

_FINE, _NO_LINE, _NO_ADDRESS, _NO_SIZE, _PAST_THE_END = 0, 1, 2, 3, 4
_NONE = 255
_REASONS = {
    _NO_LINE: "is no lackey line (they look like ' L 04222cac,8' or 'I  0401ab70,3')",
    _NO_ADDRESS: "has no hexadecimal address of 1 to 16 digits followed by a comma",
    _NO_SIZE: f"has no size from 1 to {MAX_ACCESS_BYTES} bytes at its end",
    _PAST_THE_END: "reaches past the end of the address space",
}


def _hex_values() -> np.ndarray:
    """Value of each byte as a hexadecimal digit; _NONE: it is none."""
    values = np.full(256, _NONE, np.uint8)
    for value, digit in enumerate("0123456789abcdef"):
        values[ord(digit)] = values[ord(digit.upper())] = value
    return values


def _kinds() -> np.ndarray:
    """Event of each letter; _NONE: it is none."""
    values = np.full(256, _NONE, np.uint8)
    for letter, kind in (("I", INSTRUCTION), ("L", LOAD), ("S", STORE), ("M", MODIFY)):
        values[ord(letter)] = kind
    return values


_HEX, _KIND = _hex_values(), _kinds()
_SPACE, _NEWLINE, _RETURN, _COMMA, _ZERO, _NINE = 32, 10, 13, 44, 48, 57
_LETTER_S, _LETTER_B, _LETTER_V, _LETTER_E = 83, 66, 118, 101
_EQUALS, _DASH, _STAR = 61, 45, 42


class Events(NamedTuple):
    """Some lines of a trace, in order. The arrays are views that the next piece overwrites.

    Attributes:
        kind: u8, `INSTRUCTION`, `LOAD`, `STORE` or `MODIFY`.
        address: u64, first byte.
        size: u16, bytes, 1 .. 4096.
    """

    kind: np.ndarray
    address: np.ndarray
    size: np.ndarray


@kernel
def _after_newline(text: np.ndarray, at: int, stop: int) -> int:
    """The index after the next newline; `stop` + 1 when there is none."""
    while at < stop and text[at] != _NEWLINE:
        at += 1
    return at + 1


@kernel
def _after_spaces(text: np.ndarray, at: int, stop: int) -> int:
    while at < stop and text[at] == _SPACE:
        at += 1
    return at


@kernel
def _is_skipped(text: np.ndarray, at: int, stop: int) -> bool:
    """Whether an empty line, a message of valgrind or a superblock begins here."""
    letter = text[at]
    if letter == _NEWLINE:
        return True
    following = text[at + 1] if at + 1 < stop else letter
    if letter == _LETTER_S:
        return following == _LETTER_B
    if letter == _LETTER_V:
        return following == _LETTER_E or at + 1 == stop
    return letter == following and letter in (_EQUALS, _DASH, _STAR)


@kernel
def _read_address(text: np.ndarray, at: int, stop: int) -> tuple[int, np.uint64, bool]:
    """Hexadecimal digits and their comma: index after it, address, whether they were well formed."""
    first, address = at, np.uint64(0)
    while at < stop and _HEX[text[at]] != _NONE:
        address = (address << np.uint64(4)) | np.uint64(_HEX[text[at]])
        at += 1
    good = 0 < at - first <= 16 and (at == stop or text[at] == _COMMA)
    return at + 1, address, good


@kernel
def _read_size(text: np.ndarray, at: int, stop: int) -> tuple[int, int, bool]:
    """Decimal digits and their newline: index after it, size, whether they were well formed."""
    first, size = at, 0
    while at < stop and at - first < 5 and _ZERO <= text[at] <= _NINE:
        size = size * 10 + (text[at] - _ZERO)
        at += 1
    digits = at - first
    if at < stop and text[at] == _RETURN:
        at += 1
    good = digits > 0 and 0 < size <= MAX_ACCESS_BYTES and (at == stop or text[at] == _NEWLINE)
    return at + 1, size, good


@kernel
def _read_line(text: np.ndarray, begin: int, stop: int) -> tuple[int, int, np.uint8, np.uint64, int]:
    """Any line: fault, index after it (above `stop`: unfinished), kind (`_NONE`: to be passed over), address, size."""
    at = _after_spaces(text, begin, stop)
    kind, address, size = np.uint8(_NONE), np.uint64(0), 0
    if at == stop or _is_skipped(text, at, stop):
        return _FINE, _after_newline(text, at, stop), kind, address, size
    kind = _KIND[text[at]]
    if kind == _NONE or (at + 1 < stop and text[at + 1] != _SPACE):
        return _NO_LINE, at, kind, address, size
    at, address, good = _read_address(text, _after_spaces(text, at + 1, stop), stop)
    if at > stop or not good:
        return (_FINE if at > stop else _NO_ADDRESS), at, kind, address, size
    at, size, good = _read_size(text, at, stop)
    if at > stop or not good:
        return (_FINE if at > stop else _NO_SIZE), at, kind, address, size
    fault = _PAST_THE_END if address + np.uint64(size - 1) < address else _FINE
    return fault, at, kind, address, size


@kernel
def _parse(
    text: np.ndarray, stop: int, kinds: np.ndarray, addresses: np.ndarray, sizes: np.ndarray, counters: np.ndarray
) -> int:
    """Read whole lines of text[:stop] until they or the room for events end.

    counters: bytes consumed, events, lines read. Returns a fault code; the faulty line is the one after those read.
    """
    begin, events, lines = 0, 0, 0
    fault = _FINE
    while events < kinds.size and begin < stop:
        fault, at, kind, address, size = _read_line(text, begin, stop)
        if fault != _FINE or at > stop:
            break
        begin = at
        lines += 1
        if kind != _NONE:
            kinds[events], addresses[events], sizes[events] = kind, address, size
            events += 1
    counters[0], counters[1], counters[2] = begin, events, lines
    return fault


class LackeyParser:
    """Turns chunks of lackey text into events.

    Args:
        name: what error messages call the text (a file's name).

    Attributes:
        lines: lines read so far.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines = 0
        self._rest = b""
        self._kind = np.empty(EVENTS_AT_ONCE, np.uint8)
        self._address = np.empty(EVENTS_AT_ONCE, np.uint64)
        self._size = np.empty(EVENTS_AT_ONCE, np.uint16)
        self._counters = np.zeros(3, np.int64)

    def feed(self, chunk: bytes) -> Iterator[Events]:
        """The events of the lines that `chunk` completes, in pieces; an unfinished last line waits for the next chunk.

        Raises:
            TraceFormatError: a line is malformed; names it by number.
        """
        text = np.frombuffer(self._rest + chunk if self._rest else chunk, np.uint8)
        while True:
            fault = _parse(text, text.size, self._kind, self._address, self._size, self._counters)
            used, events, lines = (int(number) for number in self._counters)
            self.lines += lines
            if events:
                yield Events(self._kind[:events], self._address[:events], self._size[:events])
            text = text[used:]
            if fault:
                raise self._error(text, _REASONS[fault])
            if events < EVENTS_AT_ONCE:
                break
        if text.size > MAX_LINE_BYTES:
            raise self._error(text, f"is longer than {MAX_LINE_BYTES} bytes")
        self._rest = text.tobytes()

    def close(self) -> None:
        """Check that the text ended with a whole line.

        Raises:
            TraceFormatError: the last line has no end: the text was cut short.
        """
        if self._rest:
            raise self._error(np.frombuffer(self._rest, np.uint8), "has no newline: the trace is cut short")

    def _error(self, text: np.ndarray, reason: str) -> TraceFormatError:
        line = bytes(text[:200]).split(b"\n", 1)[0]
        shown = ascii(line[:40].decode("latin-1")) + ("..." if len(line) > 40 else "")
        return TraceFormatError(f"{self.name}, line {self.lines + 1}: {shown} {reason}")
