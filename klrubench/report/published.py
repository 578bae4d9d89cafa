"""A published table beside the simulated one, and which of its differences come out."""

from __future__ import annotations

from klrubench.report.text import Column, fixed, joined, table, wrapped
from klrubench.validation.published import Claim, Outcome


def published_text(outcome: Outcome, width: int) -> str:
    """Set-up, both tables, then each claim that comes out and each that does not; no line passes `width`."""
    of = outcome.table
    lines = [*wrapped(f"{of.name}: {of.title}", width, "  "), *wrapped(f"  source: {of.source}", width, "    ")]
    lines += wrapped(f"  published: {of.setup}", width, "    ") + wrapped(f"  assumed: {of.assumed}", width, "    ")
    return "\n".join([*lines, "", *_table(outcome), "", *_claims(outcome, width)])


def _table(outcome: Outcome) -> list[str]:
    entries, found = outcome.table.entries, outcome.found
    columns = [
        Column(("system",), [each.label for each in entries], left=True, gap=0),
        Column(("here",), [each.policy or "(nothing)" for each in entries], left=True, gap=2),
    ]
    for column in outcome.table.columns:
        published = [fixed(each.published.get(column.name), column.digits) for each in entries]
        simulated = [fixed(own.get(column.name), column.digits) for own in found]
        columns.append(Column(("published",), published, group=column.name, gap=3))
        columns.append(Column(("simulated",), simulated, group=column.name, gap=1))
    return [f"  {line}".rstrip() for line in table(columns)]


def _claims(outcome: Outcome, width: int) -> list[str]:
    agree = [claim for claim in outcome.claims if claim.agrees]
    differ = [claim for claim in outcome.claims if claim.agrees is False]
    open_ = [claim.text for claim in outcome.claims if claim.agrees is None]
    lines = [f"  {len(agree)} of {len(agree) + len(differ)} claims come out as published (differences over 2 %)"]
    lines += [line for claim in agree for line in wrapped(f"  agrees:  {told(claim)}", width, "           ")]
    for claim in differ:
        why = f"; {claim.why}" if claim.why else ""
        lines += wrapped(f"  differs: {told(claim)}{why}", width, "           ")
    if open_:
        lines += joined([f"  not simulated: {open_[0]}", *open_[1:]], width, "; ", "    ")
    return lines


def told(claim: Claim) -> str:
    """`A < B (time s): -11.0 % published, -58.4 % here`, or the numbers."""
    if claim.is_order:
        return f"{claim.text}: {100 * claim.published:+.1f} % published, {100 * (claim.simulated or 0):+.1f} % here"
    return f"{claim.text}: {claim.published:,.0f} published, {claim.simulated or 0:,.0f} here"
