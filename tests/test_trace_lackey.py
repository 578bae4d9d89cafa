"""The parser of lackey text: against a regular expression, cut anywhere, and fed rubbish."""

from __future__ import annotations

import gzip
import lzma
import re
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.errors import TraceFormatError, UsageError
from klrubench.trace.collect import Collector
from klrubench.trace.lackey import INSTRUCTION, LOAD, MODIFY, STORE, LackeyParser
from klrubench.trace.record import import_text

KINDS = {b"I": INSTRUCTION, b"L": LOAD, b"S": STORE, b"M": MODIFY}
LINE = re.compile(rb" *([ILSM]) +([0-9a-fA-F]{1,16}),([0-9]{1,5})\r?")
SKIPPED = re.compile(rb" *((==|--|\*\*|SB|ve).*)?", re.DOTALL)

Event = tuple[int, int, int]


def twin(text: bytes) -> list[Event] | int:
    """Events of a text, or the number of its first malformed line."""
    events = []
    lines = text.split(b"\n")
    for number, line in enumerate(lines, 1):
        found = LINE.fullmatch(line)
        last = number == len(lines)
        if last and line:
            return number
        if found:
            address, size = int(found[2], 16), int(found[3])
            if not 1 <= size <= 4096 or address + size > 2**64:
                return number
            events.append((KINDS[found[1]], address, size))
        elif not SKIPPED.fullmatch(line):
            return number
    return events


def parsed(text: bytes, cuts: list[int]) -> list[Event] | int:
    """The same from the parser, fed in pieces."""
    parser, events = LackeyParser("text"), []
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    try:
        for first, last in pairwise(edges):
            for some in parser.feed(text[first:last]):
                events += list(zip(some.kind.tolist(), some.address.tolist(), some.size.tolist(), strict=True))
        parser.close()
    except TraceFormatError as error:
        found = re.match(r"text, line (\d+): ", str(error))
        assert found, error
        return int(found[1])
    return events


good_line = st.builds(
    lambda letter, address, size: letter + b" %08x,%d\n" % (address, size),
    st.sampled_from([b"I ", b" L", b" S", b" M"]),
    st.integers(0, 2**48),
    st.integers(1, 4096),
)
other_line = st.sampled_from(
    [
        b"==12== Lackey\n",
        b"--12-- x\n",
        b"**12** y\n",
        b"\n",
        b"SB 0401ab70\n",
        b"M 1F,8\r\n",
        b"   L   0,1\n",
        b"==\n",
        b"vex amd64->IR: x\n",
    ]
)
bad_line = st.sampled_from(
    [
        b" X 1,1\n", b" L 1\n", b" L ,1\n", b" L 1,\n", b" L 1,0\n", b" L 1,4097\n", b" L 1,99999999999\n",
        b" L 11111111111111111,1\n", b" L ffffffffffffffff,2\n", b" L 1,1 \n", b"= x\n", b"S\n", b"v\n", b"vx\n",
        b" L 1;1\n", b"\0\n", b"I\t1,1\n", b"L1,1\n",
    ]
)  # fmt: skip
cut_places = st.lists(st.integers(0, 2000), max_size=8)


@settings(deadline=None)
@given(st.lists(good_line | other_line, max_size=60), cut_places)
def test_whole_lines_are_read_however_they_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    text = b"".join(lines)
    assert parsed(text, cuts) == twin(text)


@settings(deadline=None)
@given(st.lists(good_line | other_line, max_size=20), bad_line, st.lists(good_line, max_size=5), cut_places)
def test_a_malformed_line_is_named_by_number(
    before: list[bytes], bad: bytes, after: list[bytes], cuts: list[int]
) -> None:
    text = b"".join([*before, bad, *after])
    assert parsed(text, cuts) == len(before) + 1 == twin(text)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.text("ILSM 0fF,19\n=-*B\r", max_size=200).map(str.encode), cut_places)
def test_rubbish_is_a_trace_format_error_or_what_a_regular_expression_says(text: bytes, cuts: list[int]) -> None:
    assert parsed(text, cuts) == twin(text)


def test_a_text_without_a_last_newline_is_cut_short() -> None:
    with pytest.raises(TraceFormatError, match="line 2: ' L 0422,1' has no newline: the trace is cut short"):
        parser = LackeyParser("a.txt")
        list(parser.feed(b"I  1,1\n L 0422,1"))
        parser.close()


def test_many_lines_are_read_in_order() -> None:
    text = b"".join(b" L %x,8\n" % (64 * i) for i in range(200_000))
    events = parsed(text, [1 << 20])
    assert events == [(LOAD, 64 * i, 8) for i in range(200_000)]


TEXT = b"==1== Lackey\n" + b"I  0401ab70,3\n L 1ffe000,8\n S 2000,4\n" * 3000


def imported(path: Path) -> tuple[int, int]:
    trace = import_text(str(path), Collector(None, 1000), filtered=False)
    return trace.card.instructions, trace.card.accesses


def zst_of_two_frames(data: bytes) -> bytes:
    pack = zstandard.ZstdCompressor().compress
    return pack(data[:5000]) + pack(data[5000:])


PACKED = {
    "txt": bytes,
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "frames.zst": zst_of_two_frames,
}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_text_is_told_by_its_first_bytes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.any"
    path.write_bytes(PACKED[kind](TEXT))
    assert imported(path) == (3000, 6000)


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_packed_text_that_is_cut_short_is_refused(kind: str, share: float, tmp_path: Path) -> None:
    packed = PACKED[kind](TEXT)
    path = tmp_path / "trace.any"
    path.write_bytes(packed[: int(len(packed) * share)])
    with pytest.raises(TraceFormatError, match=r"trace.any"):
        imported(path)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["gz", "xz", "zst"]), st.binary(max_size=300), st.integers(0, 40))
def test_packed_rubbish_is_a_trace_format_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rubbish: bytes, kept: int
) -> None:
    path = tmp_path_factory.mktemp("rubbish") / "trace"
    path.write_bytes(PACKED[kind](TEXT)[: 6 + kept] + rubbish)
    with pytest.raises(TraceFormatError):
        imported(path)


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"cannot read nowhere.txt: No such file"):
        import_text("nowhere.txt", Collector(None, 1000), filtered=False)


def test_a_text_without_accesses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes(b"==1== Lackey\nI  1,1\n")
    with pytest.raises(TraceFormatError, match=r"empty.txt: holds no memory accesses"):
        imported(path)
