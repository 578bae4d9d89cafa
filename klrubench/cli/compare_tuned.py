"""`klrubench compare --tuned`: what of `compare` goes with it, and how its answer is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from klrubench.cli.options import Format
from klrubench.errors import UsageError


def check(
    tuned: bool, budget: int | None, held_out: list[str] | None, others: Mapping[str, bool], form: Format
) -> None:
    """Raise UsageError for options that mean nothing with, or without, `--tuned`."""
    if not tuned:
        if budget is not None:
            raise UsageError(f"--budget {budget}: it is the number of trials of --tuned; add --tuned")
        if held_out:
            raise UsageError(f"--held-out {held_out[0]}: it judges what --tuned has found; add --tuned")
        return
    wrong = next((name for name, given in others.items() if given), None)
    if wrong is not None:
        raise UsageError(f"--tuned takes no {wrong}: ask for one of the two")
    if form in (Format.tsv, Format.lkml):
        raise UsageError(f"--tuned: it is written as text or --json, not as --format {form.value}")


def tuned_command(
    policies: list[str] | None,
    workloads: list[str] | None,
    budget: int | None,
    held_out: list[str] | None,
    given: dict[str, Any],
    workers: dict[str, Any],
    form: Format,
) -> None:
    """Tune every policy with the same budget, and write default and tuned side by side."""
    from klrubench.cli.output import emit, emit_json, say, width
    from klrubench.report.tuned import tuned_text
    from klrubench.study.folder import shown
    from klrubench.study.sweep.progress import sweep_progress
    from klrubench.study.tuned import compare_tuned

    workers = {**workers, "progress": sweep_progress()}
    found = compare_tuned(policies, workloads, budget=budget, held_out=held_out, **given, **workers)
    sweeps = len(found.manifest["sweeps"])
    say(f"{sweeps} sweep{'s'[: sweeps != 1]} of {found.manifest['budget']} trials; {found.computed} runs computed now")
    if form is Format.json:
        emit_json(found.to_record())
    else:
        emit(tuned_text(found, width()))
        say(f"kept in {shown(found.file)}; more of a sweep (per workload, leave one out): klrubench sweep show NAME")
