"""From a question to its runs: every machine x workload x policy x seed, resolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from klrubench.params import parse_spec
from klrubench.study.plugins import policy_source, workload_source
from klrubench.study.spec import (
    Part,
    RunSpec,
    auto_fold,
    full_accesses,
    make_spec,
    parse_scale,
    policy_part,
    resolve_options,
    workload_part,
)

if TYPE_CHECKING:
    from klrubench.machine import Machine
    from klrubench.study.suite import Question

INTERVALS = 4
"""Intervals that a policy needs to show anything: two sightings, a promotion, and time to profit from it."""


def specs(question: Question) -> list[RunSpec]:
    """All runs of a question: machines, then workloads, then policies in their order, then seeds; each once.

    Raises:
        UsageError: a name or value that does not exist, in one line.
    """
    check_names(question)
    machines = list(_machines(question))
    policies = [policy_part(text) for text in question.policy]
    workloads = list(_workloads(question))
    options = resolve_options({"daemon_cpus": question.daemon_cpus})
    found: dict[str, RunSpec] = {}
    for machine in machines:
        for workload in workloads:
            for first in _first_runs(question, machine, workload, policies, options):
                for seed in question.all_seeds:
                    spec = dataclasses.replace(first, seed=seed)
                    found.setdefault(spec.run_id, spec)
    return list(found.values())


def check_names(question: Question) -> None:
    """Look all names up before the first plug-in is loaded: a typing error is told at once."""
    for text in question.policy:
        policy_source(parse_spec(text)[0])
    for text in question.workload:
        workload_source(parse_spec(text)[0])
    parse_scale(question.scale)


def _first_runs(
    question: Question, machine: Machine, workload: Part, policies: list[Part], options: dict[str, object]
) -> Iterator[RunSpec]:
    full = full_accesses(machine, workload, question.duration)
    fold = parse_scale(question.scale) or auto_fold(full)
    for policy in policies:
        yield make_spec(machine, workload, policy, duration_s=question.duration, fold=fold, options=options, full=full)


def _machines(question: Question) -> Iterator[Machine]:
    from klrubench.machine import load_machine

    for name in question.machine:
        for ratio in question.ratio or (None,):
            yield load_machine(
                name,
                ratio=ratio,
                kernel=question.kernel,
                hz=question.hz,
                sysctls=question.sysctl,
                costs=question.cost,
            )


def _workloads(question: Question) -> Iterator[Part]:
    for text in question.workload:
        for rate in question.rates or (None,):
            for placement in question.placement or (None,):
                axes = {"rate": rate, "placement": placement}
                yield workload_part(text, **{name: value for name, value in axes.items() if value is not None})


def warnings(question: Question, runs: list[RunSpec]) -> list[str]:
    """What a person should know before believing the table: one line each."""
    found = []
    for label, interval_ms in {run.policy.label: run.policy.facts.get("interval_ms") for run in runs}.items():
        interval_s = (interval_ms or 0) / 1000
        if question.duration < INTERVALS * interval_s:
            short = f"{question.duration:g} s is under {INTERVALS} intervals of {interval_s:g} s"
            least = f"use --duration {INTERVALS * interval_s:g} or more"
            found.append(f"{short}: {label} has hardly begun; {least}")
    if question.seeds < 2:
        found.append("1 seed: no intervals, no verdicts; use --seeds 3 or more")
    return found
