"""`klrubench list`: what can be named, and what has been run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from klrubench.cli.options import Json, Results


class What(StrEnum):
    """Kinds of things that have names."""

    policies = "policies"
    workloads = "workloads"
    machines = "machines"
    suites = "suites"
    runs = "runs"


def command(
    what: Annotated[
        What | None, typer.Argument(help="One kind only; default: all but runs.", show_default=False)
    ] = None,
    as_json: Json = False,
    results: Results = None,
) -> None:
    """List policies, workloads, machines, suites or stored runs.

    \b
    Examples:
      klrubench list
      klrubench list policies
      klrubench list runs --json
    """
    from klrubench.cli.output import emit, emit_json, width
    from klrubench.report.listing import listing_text

    kinds = [what] if what else [kind for kind in What if kind is not What.runs]
    found = {kind.value: _KINDS[kind](results) for kind in kinds}
    if as_json:
        emit_json(found[what.value] if what else found)
    else:
        emit("\n\n".join(listing_text(name if len(found) > 1 else "", rows, width()) for name, rows in found.items()))


def _plugins(kind: str) -> list[dict[str, Any]]:
    from klrubench.study import plugins
    from klrubench.study.folder import shown

    infos = plugins.list_policies() if kind == "policy" else plugins.list_workloads()
    return [
        {"name": info.name, "from": info.origin, "about": info.summary, "file": shown(info.path) if info.path else ""}
        for info in infos
    ]


def _machines(_: Any) -> list[dict[str, Any]]:
    from klrubench.machine import list_machines, load_machine

    found = [load_machine(name) for name in list_machines()]
    return [{"name": machine.name, "about": machine.description, "source": machine.source} for machine in found]


def _suites(_: Any) -> list[dict[str, Any]]:
    from klrubench.study.suite import question, suites

    asked = {name: question(suite=name) for name in suites()}
    return [
        {
            "name": name,
            "about": f"{', '.join(suite.workload)}; {suite.seeds} seeds, {suite.duration:g} s, scale {suite.scale}",
            "policies": list(suite.policy),
        }
        for name, suite in asked.items()
    ]


def _runs(results: Any) -> Sequence[dict[str, Any]]:
    from klrubench.cli.output import say
    from klrubench.study.folder import results_folder
    from klrubench.study.store import Store

    folder = results or results_folder()[0]
    store = Store(folder)
    rows = [_run(record) for record in store.scan()]
    for note in store.notes:
        say(f"klrubench: {note}")
    return sorted(rows, key=lambda row: (row["workload"], row["policy"], row["machine"], row["seed"]))


def _run(record: dict[str, Any]) -> dict[str, Any]:
    spec, metrics = record["spec"], record["result"]["metrics"]
    return {
        "run": record["id"],
        "workload": spec["workload"]["label"],
        "policy": spec["policy"]["label"],
        "machine": spec["machine"]["name"],
        "seed": spec["seed"],
        "scale": f"1/{spec['fold']}",
        "work_s": spec["duration_s"],
        "time_s": metrics.get("time_s"),
        "dram_hit_share": metrics.get("dram_hit_share"),
        "computed": record["manifest"].get("created", ""),
    }


_KINDS: dict[What, Callable[[Any], Sequence[dict[str, Any]]]] = {
    What.policies: lambda _: _plugins("policy"),
    What.workloads: lambda _: _plugins("workload"),
    What.machines: _machines,
    What.suites: _suites,
    What.runs: _runs,
}
