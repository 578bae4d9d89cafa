"""The winner as a file that `klrubench compare --study` takes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klrubench.errors import StoreError
from klrubench.study.folder import shown
from klrubench.study.sweep.plan import Plan, bases_of


def winner_toml(plan: Plan, confirmed: Mapping[str, Any], name: str, about: str) -> str:
    """A study file: the default beside the winner (of several objectives: points of the front), where it was judged.

    Args:
        plan: the sweep.
        confirmed: what `confirm` found.
        name: of the sweep.
        about: one line on budget and outcome.
    """
    told = plan.question
    winners = [confirmed["winner"]] if "winner" in confirmed else confirmed["winners"]
    labels = list(dict.fromkeys([plan.part.label, *(each["label"] for each in winners)]))
    lines = [
        f"# Winner of sweep {name}: klrubench compare --study FILE puts it beside the default and the bounds.",
        f"# {about}",
        f"# Tuned on seeds 1-{plan.asked.seeds}, judged on {confirmed['seeds'][0]}-{confirmed['seeds'][-1]}; held out: "
        + (", ".join(confirmed["held_out"]) or "no workload"),
        _pair("policy", labels),
        _pair("workload", [*confirmed["workloads"], *confirmed["held_out"]]),
        _pair("machine", told.machine[0]),
        *([_pair("ratio", told.ratio[0])] if told.ratio else []),
        *([_pair(key, value)] for key, value in (("kernel", told.kernel), ("hz", told.hz)) if value is not None),
        _pair("seeds", plan.asked.fresh_seeds),
        _pair("first_seed", confirmed["seeds"][0]),
        _pair("duration", plan.asked.full_duration),
        _pair("scale", _scale(plan, confirmed)),
        _pair("daemon_cpus", told.daemon_cpus),
    ]
    flat = [line for each in lines for line in ([each] if isinstance(each, str) else each)]
    sweep = {
        "name": name,
        "default": plan.part.label,
        "tuned_on": confirmed["workloads"],
        "held_out": confirmed["held_out"],
        "folds": [confirmed["scales"][label] for label in (*confirmed["workloads"], *confirmed["held_out"])],
        "objectives": [each.name for each in plan.objectives],
        "trials": plan.asked.trials,
        "chosen_by_seeds": [1, confirmed["seeds"][0] - 1],
    }
    return "\n".join([*flat, *_tables(told.sysctl, told.cost), *_table("sweep", sweep), ""])


def _scale(plan: Plan, confirmed: Mapping[str, Any]) -> str:
    """The scale as typed; where that is coarser than the winner could be judged at, the coarsest that it was."""
    told, judged = plan.question, confirmed["scales"]
    bases = bases_of(told, list(judged), plan.part, plan.asked.full_duration, told.scale)
    same = all(judged[base.workload.label] == base.fold for base in bases)
    return told.scale if same else f"1/{max(judged.values())}"


def _tables(sysctl: Mapping[str, Any], cost: Mapping[str, Any]) -> list[str]:
    found = []
    for name, table in (("sysctl", sysctl), ("cost", cost)):
        if table:
            found += _table(name, table)
    return found


def _table(name: str, table: Mapping[str, Any]) -> list[str]:
    return [f"[{name}]", *(f"{json.dumps(key)} = {_value(value)}" for key, value in table.items())]


def _pair(name: str, value: Any) -> str:
    return f"{name} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(each) for each in value)}]"
    return json.dumps(value)


def write(path: Path, text: str) -> None:
    """Write a file at once; raises StoreError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"cannot write {shown(path)}: {error.strerror or error}") from None
