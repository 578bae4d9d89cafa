"""Short names: policies as two-line column heads, with a key for what does not fit."""

from __future__ import annotations

from collections.abc import Sequence

_WIDTH = 6


def heads(
    labels: Sequence[str], tiers: Sequence[str] = ("DRAM", "CXL")
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Column heads of one or two words, a third line for parameter values, and the lines that spell values out.

    Args:
        labels: policy labels, `NAME` or `NAME:key=value,...`.
        tiers: names of the top and the lower tier, used for `all_top` and `all_lower`.

    Returns:
        The head lines of each label, and the key (one line a label that has parameters).
    """
    found: dict[str, tuple[str, ...]] = {}
    key: list[str] = []
    for label in dict.fromkeys(labels):
        name, _, values = label.partition(":")
        words = name_words(name, tiers)
        variant = _variant(values)
        if values and (not variant or (*words, variant) in found.values()):
            variant = f"({1 + sum(line.startswith('(') for line in key)})"
        elif (*words, variant) in found.values():
            variant = f"({1 + len(key)})"
        found[label] = (*words, variant) if variant else words
        key += [f"{variant if variant.startswith('(') else ' '.join(found[label])}: {label}"] if variant else []
    return found, key


def name_words(name: str, tiers: Sequence[str] = ("DRAM", "CXL"), width: int = _WIDTH) -> tuple[str, ...]:
    """A policy's or a thread's name in one to three words of at most `width` letters."""
    bounds = {"all_top": ("all", tiers[0]), "all_lower": ("all", tiers[-1])}
    if name in bounds:
        return bounds[name]
    parts = name.split("_")
    if len(parts) > 1:
        joints = [part if len(part) > 4 else part + "_" for part in parts[:-1]]
        return tuple(part[:width] for part in (*joints, parts[-1]))[:3]
    if " " in name:
        return tuple(part[:width] for part in name.split())[:3]
    if len(name) <= width:
        return (name,)
    middle = min(width - 1, len(name) // 2)
    return (name[:middle] + "-", name[middle : middle + width])


def _variant(values: str) -> str:
    """The value of a single parameter, if it says enough in a column's width."""
    items = [item.partition("=")[2] for item in values.split(",") if item]
    text = items[0] if len(items) == 1 else ""
    return text if 0 < len(text) <= _WIDTH + 2 and text not in ("true", "false", "on", "off") else ""


def spoken(label: str, tiers: Sequence[str] = ("DRAM", "CXL"), most: int = 16) -> str:
    """A policy in at most `most` characters: its name, and the value of its one parameter if there is room."""
    name, _, values = label.partition(":")
    words = name_words(name, tiers)
    base = " ".join(words) if name in ("all_top", "all_lower") else name
    long = f"{base} {_variant(values) or '(..)'}" if values else base
    if len(long) <= most:
        return long
    short = words[0].rstrip("-_")
    return f"{short} {_variant(values) or '(..)'}"[:most] if values else base[:most]
