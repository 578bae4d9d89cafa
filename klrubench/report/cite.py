"""Sources as text, one row a source."""

from __future__ import annotations

from collections.abc import Sequence

from klrubench.report.text import wrapped
from klrubench.study.sources import Source, lore


def cite_text(found: Sequence[Source], width: int) -> str:
    """Each row's name and kind, what it is, its source in its own words, and where a message can be read."""
    lines: list[str] = []
    last = ""
    for source in found:
        head = f"{source.kind} {source.name}"
        if head != last:
            lines.append(head)
        last = head
        told = f"{source.about}: {source.text}" if source.text else f"{source.about}: no source of its own"
        lines += wrapped(f"  {told}", width, "    ")
        lines += [f"    {lore(message)}" for message in source.message_ids]
    return "\n".join(lines)
