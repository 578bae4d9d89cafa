"""The card of a trace, for people and for programs."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

from klrubench.trace.format import PAGE_SHIFT, VERSION

if TYPE_CHECKING:
    from klrubench.trace.format import Trace, TraceCard

__all__ = ["card_json", "card_text"]

_LABEL = 13
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


def card_json(trace: Trace) -> str:
    """The card as JSON, with format version and digest."""
    return json.dumps({"version": VERSION, "digest": trace.digest(), **asdict(trace.card)}, indent=2)


def card_text(trace: Trace, name: str, width: int = 100) -> str:
    """The card as lines of at most `width` columns."""
    card = trace.card
    facts = {
        "trace": f"{name}, format {VERSION}, digest {trace.digest()[:12]}",
        "program": f"{card.command or 'not known'}{f' ({card.note})' if card.note else ''}",
        "recorded": f"{card.tool}; {_ending(card)}; {_threads(card)}",
        "length": _length(card),
        "touches": f"{card.touches:,} of 64-byte lines, {_writes(trace):.0%} of them writes",
        "cache": _cache(card),
        "footprint": f"{card.pages:,} pages of 4 KiB ({_size(card.pages << PAGE_SHIFT)}) in {card.extents:,} extents",
        "rows": f"{trace.page.size:,} (page, epoch) pairs, {trace.page.size / card.epochs:,.0f} pages an epoch",
        "time base": f"{card.time_base}; there is no time in it, so the rate of a replay is chosen",
        "lacks": card.lacks,
    }
    lines: list[str] = []
    for label, fact in facts.items():
        for text in fact if isinstance(fact, tuple) else (fact,):
            lines += textwrap.wrap(text, width, initial_indent=label.ljust(_LABEL), subsequent_indent=" " * _LABEL)
            label = ""
    return "\n".join(lines)


def _ending(card: TraceCard) -> str:
    if card.exit_code is None:
        return "as text, whole" if card.complete else "not to the end"
    return f"exit code {card.exit_code}" if card.exit_code >= 0 else f"ended by signal {-card.exit_code}"


def _threads(card: TraceCard) -> str:
    return "threads not known" if card.threads is None else f"{card.threads} thread{'s' * (card.threads != 1)} at most"


def _length(card: TraceCard) -> str:
    instructions = f"{card.instructions:,} instructions, " if card.instructions else ""
    epochs = f"{card.epochs:,} epoch{'s' * (card.epochs != 1)} of {card.epoch_length:,} {card.time_base}"
    return f"{instructions}{card.accesses:,} accesses in {epochs}"


def _writes(trace: Trace) -> float:
    return int(trace.writes.sum(dtype="i8")) / trace.card.touches


def _cache(card: TraceCard) -> str:
    if not card.llc_bytes:
        return "none (unfiltered): every touch counts as a miss"
    share = card.llc_misses / card.touches
    return f"{_size(card.llc_bytes)}, {card.llc_ways} ways: {card.llc_misses:,} touches missed ({share:.2%})"


def _size(size_bytes: int) -> str:
    unit, name = next((unit, name) for unit, name in _UNITS if size_bytes >= unit or unit == 1)
    return f"{size_bytes / unit:.4g} {name}"
