"""Plain-text tables: numbers as people read them, columns, and blocks that never pass a given width."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

WIDTH = 100
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
_ASCII = {"±": "+-", "µ": "u", "\u00d7": "x", "\u2013": "-", "\u2014": "-", "…": "...", "≤": "<=", "≥": ">=", "→": "->"}


def rows_of(frame: Any) -> list[dict[str, Any]]:
    """The rows of a Polars frame, or of anything that already is a sequence of mappings."""
    return list(frame.to_dicts()) if hasattr(frame, "to_dicts") else [dict(row) for row in frame]


def missing(value: Any) -> bool:
    """Whether a cell has no number: None or not-a-number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def fixed(value: Any, digits: int = 0, none: str = "-") -> str:
    """A number with that many digits after the point, never `-0`; `none` where there is no number."""
    if missing(value):
        return none
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def points(value: Any) -> str:
    """A slowdown in %: one digit after the point, none from 100 on."""
    return fixed(value, 1 if not missing(value) and abs(value) < 99.95 else 0)


def half(value: Any) -> str:
    """Half an interval in points, short: `.3`, `1.2`, `12`; empty where there is none."""
    if missing(value):
        return ""
    if value < 0.95:
        return fixed(value, 1).removeprefix("0")
    return fixed(value, 1 if value < 9.95 else 0)


def tenths(value: Any) -> str:
    """A rate in a column: one digit after the point under 10, none from there on."""
    return fixed(value, 1 if not missing(value) and 0 < abs(value) < 9.95 else 0)


def share(value: Any, digits: int = 0) -> str:
    """A share 0..1 as a number of percent."""
    return fixed(None if missing(value) else 100 * value, digits)


def significant(value: Any, digits: int = 2) -> str:
    """A rate: that many significant digits, but no exponent and whole numbers from 10 on (`0.1`, `2.3`, `22`)."""
    if missing(value):
        return "-"
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return fixed(value)
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return fixed(value, max(0, places)).rstrip("0").rstrip(".")


def size(count: Any) -> str:
    """Bytes in binary units, three significant digits at most: `0`, `640 B`, `1.5 MiB`, `20 GiB`."""
    if missing(count):
        return "-"
    if count == 0:
        return "0"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1023.5 or unit == "TiB":
            break
        value /= 1024
    return f"{fixed(value, 0 if value >= 9.95 or unit == 'B' else 1).removesuffix('.0')} {unit}"


def count(value: Any) -> str:
    """A large count in thousands, short: `987`, `12.3 k`, `4.5 M`."""
    if missing(value):
        return "-"
    number = float(value)
    for unit in ("", " k", " M", " G", " T"):
        if abs(number) < 999.5 or unit == " T":
            break
        number /= 1000
    return f"{fixed(number, 0 if not unit or abs(number) >= 99.95 else 1)}{unit}"


def plain_ascii(text: str) -> str:
    """The same text in 7-bit characters, for mailing lists."""
    for other, ascii_text in _ASCII.items():
        text = text.replace(other, ascii_text)
    return text.encode("ascii", "replace").decode()


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most `width` columns; those after the first start with `indent`."""
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
    return lines or [""]


def joined(parts: Iterable[str], width: int, separator: str = "; ", indent: str = "") -> list[str]:
    """Parts joined by `separator`, broken between parts where the line would pass `width`."""
    lines: list[str] = []
    line, given = "", list(filter(None, parts))
    for number, part in enumerate(given, 1):
        longer = f"{line}{separator}{part}" if line else f"{indent if lines else ''}{part}"
        room = width - (len(separator.rstrip()) if number < len(given) else 0)
        if line and len(longer) > room:
            lines.append(line + separator.rstrip())
            longer = indent + part
        line = longer
    final = [*lines, line] if line else lines
    return [piece for text in final for piece in wrapped(text, width, indent or "  ")]


@dataclass
class Column:
    """One column of a table.

    Attributes:
        head: header lines, top to bottom; shorter heads sink to the bottom.
        cells: one text a row.
        group: title over this and the neighbouring columns of the same group; `long|short` gives a choice.
        left: set flush left instead of right.
        gap: blanks before the column.
        strong: rows (by number) that stand out where colour is on.
    """

    head: tuple[str, ...]
    cells: list[str]
    group: str = ""
    left: bool = False
    gap: int = 1
    strong: frozenset[int] = field(default_factory=frozenset)

    @property
    def width(self) -> int:
        """Columns of text that the widest of head and cells takes."""
        return max(len(text) for text in (*self.head, *self.cells, ""))

    @property
    def space(self) -> int:
        """Width and the blanks before it."""
        return self.width + self.gap

    def set(self, text: str) -> str:
        """A text padded to the column, with the blanks before it."""
        padded = text.ljust(self.width) if self.left else text.rjust(self.width)
        return " " * self.gap + padded


def table(columns: Sequence[Column], colour: bool = False) -> list[str]:
    """The lines of one table: groups (if any column has one), heads, rows. No trailing blanks."""
    depth = max((len(column.head) for column in columns), default=0)
    lines = [_groups(columns)] if any(column.group for column in columns) else []
    for level in range(depth):
        lines.append("".join(column.set(_head(column, level, depth)) for column in columns))
    for row in range(max((len(column.cells) for column in columns), default=0)):
        lines.append("".join(_cell(column, row, colour) for column in columns))
    return [line.rstrip() for line in lines]


def _head(column: Column, level: int, depth: int) -> str:
    position = level - (depth - len(column.head))
    return column.head[position] if position >= 0 else ""


def _cell(column: Column, row: int, colour: bool) -> str:
    text = column.cells[row] if row < len(column.cells) else ""
    placed = column.set(text)
    if not (colour and text.strip() and row in column.strong):
        return placed
    return placed.replace(text, f"{BOLD}{text}{PLAIN}", 1)


def _groups(columns: Sequence[Column]) -> str:
    """The line of group titles, each over its run of columns and no wider than that."""
    line = ""
    at = 0
    for group, run in groupby(columns, key=lambda column: column.group):
        members = list(run)
        room = sum(column.space for column in members) - members[0].gap
        if group:
            line = line.ljust(at + members[0].gap) + _fitting(group, room)
        at += room + members[0].gap
    return line


def _fitting(title: str, room: int) -> str:
    choices = title.split("|")
    return next((choice for choice in choices if len(choice) <= room), choices[-1][:room])


def blocks(
    first: Sequence[Column],
    middle: Sequence[Sequence[Column]],
    last: Sequence[Column],
    width: int,
    colour: bool = False,
) -> list[list[str]]:
    """One table, or as many as it takes for none to pass `width`.

    Args:
        first: the row labels (repeated in every block) and the columns that only the first block has.
        middle: columns that stay together (a value and its interval), in order.
        last: columns that only the last block has.
        width: columns of text a line may have.
        colour: whether cells that stand out are set in bold.

    Returns:
        The lines of each block.
    """
    parts = _split(first, middle, last, width)
    tables: list[list[str]] = []
    for number, groups in enumerate(parts):
        columns = list(first if number == 0 else first[:1])
        columns += [column for group in groups for column in group]
        columns += last if number == len(parts) - 1 else []
        tables.append(table(columns, colour))
    return tables


def _split(
    first: Sequence[Column], middle: Sequence[Sequence[Column]], last: Sequence[Column], width: int
) -> list[list[Sequence[Column]]]:
    """Groups of `middle` a block, as even as they go: the fewest blocks that fit."""
    sizes = [sum(column.space for column in group) for group in middle]
    label = sum(column.space for column in first[:1])
    extra = sum(column.space for column in first[1:])
    tail = sum(column.space for column in last)
    for wanted in range(1, len(middle) + 2):
        total = sum(sizes) + extra + tail
        aim = min(width - label, math.ceil(total / wanted) + max(sizes, default=0) // 2)
        parts = _greedy(sizes, aim if wanted > 1 else width - label, extra, tail, width - label)
        if len(parts) <= wanted:
            return [[middle[index] for index in part] for part in parts]
    return [[group] for group in middle]


def _greedy(sizes: Sequence[int], aim: int, used: int, tail: int, most: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for index, need in enumerate(sizes):
        if parts[-1] and used + need > aim:
            parts.append([])
            used = 0
        parts[-1].append(index)
        used += need
    if used + tail > most and parts[-1]:
        parts.append([])
    return parts


def keyed(labels: Sequence[str], width: int) -> tuple[dict[str, str], list[str]]:
    """Labels cut to `width`, the cut ones numbered, and the lines that say what each number stands for."""
    short: dict[str, str] = {}
    lines: list[str] = []
    for label in dict.fromkeys(labels):
        if len(label) <= width:
            short[label] = label
            continue
        mark = f" ({len(lines) + 1})"
        short[label] = label.partition(":")[0][: width - len(mark)] + mark
        lines.append(f"{mark.strip()} {label}")
    return short, lines


def flat(row: Mapping[str, Any]) -> dict[str, str]:
    """Cells for TSV: full numbers, empty where there is none, no tabs or line breaks inside."""
    return {key: "" if missing(value) else _tsv(value) for key, value in row.items()}


def _tsv(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return " ".join(text.split())


def tsv(frame: Any) -> str:
    """Tab-separated lines with a header, full numbers; columns are those of the first row."""
    rows = [flat(row) for row in rows_of(frame)]
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["\t".join(names), *("\t".join(row.get(name, "") for name in names) for row in rows)]
    return "\n".join(lines) + "\n"
