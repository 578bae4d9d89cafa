"""A published table beside the simulated one, and which of its differences come out."""

from __future__ import annotations

from klrubench.report.text import Column, blocks, fixed, joined, wrapped
from klrubench.validation.published import Claim, Outcome


def published_text(outcome: Outcome, width: int) -> str:
    """Set-up, both tables, then each claim that comes out and each that does not; no line passes `width`."""
    of = outcome.table
    lines = [*wrapped(f"{of.name}: {of.title}", width, "  "), *wrapped(f"  source: {of.source}", width, "    ")]
    lines += wrapped(f"  published: {of.setup}", width, "    ") + wrapped(f"  assumed: {of.assumed}", width, "    ")
    return "\n".join([*lines, "", *_table(outcome, width), "", *_claims(outcome, width)])


def _table(outcome: Outcome, width: int) -> list[str]:
    entries, found = outcome.table.entries, outcome.found
    first = [
        Column(("system",), [each.label for each in entries], left=True, gap=0),
        Column(("here",), [each.policy or "(nothing)" for each in entries], left=True, gap=2),
    ]
    middle = []
    for column in outcome.table.columns:
        published = [fixed(each.published.get(column.name), column.digits) for each in entries]
        simulated = [fixed(own.get(column.name), column.digits) for own in found]
        told_of = any(column.name in each.published for each in entries)
        if not told_of:
            middle.append([Column((column.name, "simulated"), simulated, gap=3)])
            continue
        pair = [Column(("published",), published, group=column.name, gap=3)]
        middle.append([*pair, Column(("simulated",), simulated, group=column.name, gap=1)])
    lines: list[str] = []
    for block in blocks(first, middle, [], width - 2):
        lines += [""] * bool(lines) + [f"  {line}".rstrip() for line in block]
    return lines


def _claims(outcome: Outcome, width: int) -> list[str]:
    agree = [claim for claim in outcome.claims if claim.agrees]
    differ = [claim for claim in outcome.claims if claim.agrees is False]
    unknown = [claim for claim in outcome.claims if claim.agrees is None]
    lines = [f"  {len(agree)} of {len(agree) + len(differ)} claims come out as published (differences over 2 %)"]
    lines += [line for claim in agree for line in wrapped(f"  agrees:  {told(claim)}", width, "           ")]
    for why, claims in by_reason(differ):
        lines += [line for claim in claims for line in wrapped(f"  differs: {told(claim)}", width, "           ")]
        lines += wrapped(f"  because: {why}", width, "           ") if why else []
    for why, claims in by_reason(unknown):
        texts = [claim.text for claim in claims]
        lines += joined([f"  not simulated: {texts[0]}", *texts[1:]], width, "; ", "    ")
        lines += wrapped(f"  because: {why}", width, "           ") if why else []
    return lines


def by_reason(claims: list[Claim]) -> list[tuple[str, list[Claim]]]:
    """Claims that have their reason in common, in the order of the first of each."""
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.why, []).append(claim)
    return list(groups.items())


def summary_text(outcomes: list[Outcome], width: int) -> str:
    """How many claims of all tables come out, and which tables have some that do not."""
    claims = [claim for outcome in outcomes for claim in outcome.claims]
    judged = [claim for claim in claims if claim.agrees is not None]
    agree = sum(bool(claim.agrees) for claim in judged)
    parts = [
        f"{len(outcomes)} table{'s' * (len(outcomes) != 1)}: {agree} of {len(judged)} claims come out as published",
        f"{len(claims) - len(judged)} not simulated",
    ]
    odd = [outcome.table.name for outcome in outcomes if any(claim.agrees is False for claim in outcome.claims)]
    lines = joined(parts, width, ", ")
    return "\n".join([*lines, *(wrapped(f"differences in: {', '.join(odd)}", width, "  ") if odd else [])])


def told(claim: Claim) -> str:
    """`A < B (time s): -11.0 % published, -58.4 % here`, or the numbers."""
    if claim.is_order:
        return f"{claim.text}: {100 * claim.published:+.1f} % published, {100 * (claim.simulated or 0):+.1f} % here"
    return f"{claim.text}: {claim.published:,.0f} published, {claim.simulated or 0:,.0f} here"
