"""Read a configuration of masim, the memory access simulator of the DAMON project (github.com/sjp38/masim).

Paragraphs are parted by empty lines, and lines that begin with `#` are comments. The first paragraph names the regions
(`name, bytes[, file]`); each other one is a phase: its name, its length in ms, and lines `region, 1 random or 0
sequential, stride in bytes, weight[, ro|wo|rw]`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from klrubench.engine.streams import PAGE_BYTES, Part, PhaseStream, RangeStream
from klrubench.errors import ParameterError, ScaleError, TraceFormatError

if TYPE_CHECKING:
    from klrubench.workload import Layout, Stream

__all__ = ["MasimConfig", "MasimPattern", "MasimPhase", "masim_stream", "parse_masim_config", "read_masim_config"]

MAX_BYTES = 1 << 20
MAX_LINES = 1024  # regions, or patterns a phase
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{0,18})?")
_WRITES = {"ro": False, "wo": True, "rw": True}
_Line = tuple[int, str]


class MasimPattern(NamedTuple):
    """How a phase touches a region. `stride_bytes` 0: at random; `writes` None: the file does not say."""

    region: str
    stride_bytes: int
    weight: float
    writes: bool | None


class MasimPhase(NamedTuple):
    """One phase: how long it lasts, and its patterns."""

    name: str
    length_ms: float
    patterns: tuple[MasimPattern, ...]


class MasimConfig(NamedTuple):
    """Regions (name to bytes, in file order) and phases."""

    regions: dict[str, int]
    phases: tuple[MasimPhase, ...]

    def ranges(self, pages: int) -> dict[str, tuple[int, int]]:
        """First page and pages of each region when all of them are stretched, in proportion, over `pages` pages.

        Raises:
            ScaleError: a region would have no page.
        """
        total, before, ranges = sum(self.regions.values()), 0, {}
        for name, size in self.regions.items():
            first, before = pages * before // total, before + size
            ranges[name] = (first, pages * before // total - first)
            if ranges[name][1] == 0:
                raise ScaleError(f"masim region '{name}' is under one of {pages} simulated pages; take a larger scale")
        return ranges


def masim_stream(config: MasimConfig, layout: Layout, read_share: float) -> Stream:
    """The phases of a masim configuration, over and over; `read_share` is for patterns that name no mode.

    Regions are stretched onto the footprint, phases last as long as given, a stride is as many bytes a touch as there.
    """
    ranges = config.ranges(layout.pages)

    def patterns(phase: int, start: int) -> Stream:
        chosen = config.phases[phase % len(config.phases)].patterns
        total = sum(pattern.weight for pattern in chosen)
        return RangeStream(layout, [part(pattern, pattern.weight / total) for pattern in chosen], origin=start)

    def part(pattern: MasimPattern, share: float) -> Part:
        reads = read_share if pattern.writes is None else float(not pattern.writes)
        return Part(share, *ranges[pattern.region], reads, pattern.stride_bytes * share / PAGE_BYTES)

    return PhaseStream(layout, [phase.length_ms / 1000 for phase in config.phases], patterns)


def read_masim_config(path: str) -> MasimConfig:
    """The configuration in the file `path`.

    Raises:
        ParameterError: the file cannot be read.
        TraceFormatError: it is not a masim configuration; names the line.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ParameterError(f"config={path}: cannot read it ({getattr(error, 'strerror', None) or error})") from None
    return parse_masim_config(content, path)


def parse_masim_config(content: bytes, path: str) -> MasimConfig:
    """The configuration in these bytes; `path` is for messages."""
    if len(content) > MAX_BYTES:
        raise TraceFormatError(f"masim config {path}: over {MAX_BYTES} bytes, which no masim config is")
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise TraceFormatError(f"masim config {path}: not a text file") from None
    return _Reader(path).read(lines)


class _Reader:
    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, lines: list[str]) -> MasimConfig:
        first, *rest = _paragraphs(lines) or [[]]
        regions = self._regions(first)
        if not rest:
            self._fail(len(lines), "no phase; an empty line must part the regions from the phases")
        return MasimConfig(regions, tuple(self._phase(paragraph, regions) for paragraph in rest))

    def _regions(self, paragraph: list[_Line]) -> dict[str, int]:
        regions: dict[str, int] = {}
        for number, line in paragraph[: MAX_LINES + 1]:
            fields = _fields(line)
            if len(fields) not in (2, 3) or not fields[0] or fields[0] in regions:
                self._fail(number, f"'{line[:40]}' is not a new region: name, bytes[, file]")
            regions[fields[0]] = int(self._number(number, "bytes", fields[1], least=1))
        if not 0 < len(regions) <= MAX_LINES:
            self._fail(1, f"{len(regions)} regions; there must be 1 to {MAX_LINES}")
        return regions

    def _phase(self, paragraph: list[_Line], regions: dict[str, int]) -> MasimPhase:
        number, name = paragraph[0]
        if not 3 <= len(paragraph) <= MAX_LINES:
            self._fail(number, f"phase '{name[:40]}' needs a name, a length in ms and 1 to {MAX_LINES - 2} patterns")
        length_ms = self._number(paragraph[1][0], "length in ms", paragraph[1][1].strip(), least=1)
        patterns = tuple(self._pattern(number, line, regions) for number, line in paragraph[2:])
        if sum(pattern.weight for pattern in patterns) <= 0:
            self._fail(number, f"phase '{name[:40]}' has no pattern with a weight above 0")
        return MasimPhase(name.strip(), length_ms, patterns)

    def _pattern(self, number: int, line: str, regions: dict[str, int]) -> MasimPattern:
        fields = _fields(line)
        if len(fields) not in (4, 5):
            self._fail(number, f"'{line[:40]}' is not region, random, stride, weight[, ro|wo|rw]")
        if fields[0] not in regions:
            self._fail(number, f"no region '{fields[0][:40]}' in the first paragraph")
        if fields[1] not in ("0", "1"):
            self._fail(number, f"'{fields[1][:40]}' must be 1 (random) or 0 (sequential)")
        if len(fields) == 5 and fields[4] not in _WRITES:
            self._fail(number, f"mode '{fields[4][:40]}' must be ro, wo or rw")
        stride = int(self._number(number, "stride", fields[2], least=0 if fields[1] == "1" else 1))
        weight = self._number(number, "weight", fields[3], least=0)
        writes = _WRITES[fields[4]] if len(fields) == 5 else None
        return MasimPattern(fields[0], stride if fields[1] == "0" else 0, weight, writes)

    def _number(self, number: int, what: str, text: str, least: int) -> float:
        if not _NUMBER.fullmatch(text) or float(text) < least:
            self._fail(number, f"{what} '{text[:40]}' must be a number from {least}")
        return float(text)

    def _fail(self, number: int, fault: str) -> NoReturn:
        raise TraceFormatError(f"masim config {self._path}, line {number}: {fault}")


def _paragraphs(lines: list[str]) -> list[list[_Line]]:
    paragraphs: list[list[_Line]] = [[]]
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        if line.strip():
            paragraphs[-1].append((number, line))
        elif paragraphs[-1]:
            paragraphs.append([])
    return [paragraph for paragraph in paragraphs if paragraph]


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split(",")]
