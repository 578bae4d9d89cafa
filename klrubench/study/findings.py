"""Numbers in prose that come from a claim: a comment after the number names it, and both must agree as printed.

    klruscand is 12.9 % slower<!-- kv.klruscand -->, by 4.3 ± 0.4 points<!-- kv.gain -->; 4.3 points less<!-- -kv.x -->

The number is the last one before the comment on its line, at the precision printed, with half of its interval where
`±` follows; `-` before the id takes the claim's value with the other sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from klrubench.study.evidence import Found

FILE = "FINDINGS.md"
_MARKER = re.compile(r"<!--\s*(?P<sign>-?)(?P<id>[A-Za-z0-9_][\w.:,=/-]*)\s*-->")
_NUMBER = r"[-+\u2212]?\d+(?:,\d{3})*(?:\.\d+)?"
_LAST = re.compile(rf"(?P<value>(?<![\w.]){_NUMBER})(?:\s*(?:±|\+-)\s*(?P<half>{_NUMBER}))?(?P<rest>[^\d<>]*)$")


class Printed(NamedTuple):
    """A marked number of a text.

    Attributes:
        line: its number, from 1.
        name: the claim's id; `negated`: its value is taken with the other sign.
        text, half: the number and half of its interval as printed; empty if there is none.
    """

    line: int
    name: str
    negated: bool
    text: str
    half: str


def printed(text: str) -> Iterator[Printed]:
    """Every marked number of a text; a marker without a number before it has an empty `text`."""
    for number, line in enumerate(text.splitlines(), 1):
        start = 0
        for marker in _MARKER.finditer(line):
            found = _LAST.search(line[start : marker.start()])
            start = marker.end()
            value, half = (found["value"], found["half"] or "") if found else ("", "")
            yield Printed(number, marker["id"], bool(marker["sign"]), value, half)


def wrong(text: str, found: Mapping[str, Found]) -> list[str]:
    """What does not agree, a line each; empty: every marked number is that of its claim.

    Args:
        text: the prose.
        found: claims with their values, by id.
    """
    return [f"line {each.line}: {why}" for each in printed(text) if (why := _wrong(each, found))]


def disagreements(folder: Path, found: Iterable[Found]) -> list[str]:
    """What does not agree in FINDINGS.md of a folder; nothing where there is none."""
    file = folder / FILE
    if not file.is_file():
        return []
    by_name = {each.claim.name: each for each in found}
    return [f"{FILE} {line}" for line in wrong(file.read_text(encoding="utf-8"), by_name)]


def _wrong(each: Printed, found: Mapping[str, Found]) -> str:
    if each.name not in found:
        return f"no claim '{each.name}'"
    one = found[each.name]
    if not each.text:
        return f"no number before the marker of {each.name}"
    if one.value is None:
        return f"{each.name} has no value: {one.why}"
    value = -one.value if each.negated else one.value
    if not agrees(each.text, value):
        return f"{each.name} is {value:.6g}, not {each.text}"
    if each.half and one.half is None:
        return f"{each.name} has no interval, but ± {each.half} is printed"
    if each.half and one.half is not None and not agrees(each.half, one.half):
        return f"half the interval of {each.name} is {one.half:.6g}, not {each.half}"
    return ""


def agrees(text: str, value: float) -> bool:
    """Whether a number as printed is a value rounded to as many decimals."""
    plain = text.replace("\u2212", "-").replace(",", "")
    decimals = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5 * 10.0**-decimals * (1 + 1e-9) + 1e-12
