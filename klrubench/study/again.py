"""A stored run once more: found by its id, resolved again with the code of today, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import UsageError
from klrubench.study.spec import RunSpec, policy_part, workload_part
from klrubench.study.store import Store
from klrubench.study.table import ratio_text

if TYPE_CHECKING:
    from klrubench.machine import Machine

_HEX = set("0123456789abcdef")
SAME = ("machine", "workload", "workload content", "seed", "duration", "scale", "options")
"""Components that a run has in common with the one it is held against."""


def find_run(store: Store, text: str, series: bool = True) -> dict[str, Any]:
    """The stored run whose id begins with `text`.

    Raises:
        UsageError: no id begins so, or several do.
    """
    found = [run_id for run_id in store.ids() if run_id.startswith(text.lower())]
    if not text or not set(text.lower()) <= _HEX or not found:
        raise UsageError(f"no stored run '{text}' (klrubench list runs)")
    if len(found) > 1:
        some = ", ".join(run_id[:12] for run_id in found[:4])
        raise UsageError(f"run '{text}' is not unique: {some}{' ...' if len(found) > 4 else ''}; write more of the id")
    record = store.get(found[0], series=series)
    if record is None:
        raise UsageError(f"run {found[0][:12]}: {store.notes[-1] if store.notes else 'cannot be read back'}")
    return record


def machine_of(spec: Mapping[str, Any]) -> Machine:
    """The machine of a stored run; words that only people read are empty."""
    from klrubench.machine import Machine

    data = spec["machine"]
    costs = {name: {"source": "", **cost} for name, cost in data["costs"].items()}
    return Machine.from_dict({"description": "", "source": "", **data, "costs": costs})


def spec_of(record: Mapping[str, Any], policy: str | None = None) -> RunSpec:
    """The run resolved anew, with the sources found today; `policy`: another one on the same work.

    Its id is that of the record only where no code has changed since.

    Raises:
        UnknownNameError, ParameterError, UsageError: its policy or workload is not there any more.
    """
    spec = record["spec"]
    return RunSpec(
        machine_of(spec).to_dict(),
        workload_part(spec["workload"]["label"]),
        policy_part(policy or spec["policy"]["label"]),
        int(spec["seed"]),
        float(spec["duration_s"]),
        int(spec["fold"]),
        dict(spec["options"]),
    )


def alike(store: Store, record: Mapping[str, Any], policy: str) -> dict[str, Any] | None:
    """The stored run of another policy on the very same work, computed by the same code; `None` if there is none."""
    own = record["spec"]["components"]
    names = [*SAME, "workload code", *(name for name in own if name.endswith(" code") and name != "policy code")]
    for other in store.scan():
        theirs = other["spec"]["components"]
        if other["spec"]["policy"]["label"] == policy and all(theirs.get(name) == own.get(name) for name in names):
            return other
    return None


def work_words(spec: Mapping[str, Any]) -> list[str]:
    """Options of `klrubench run` that give the same machine and work, the defaults left out.

    Raises:
        UsageError: the machine is a file that is not known by name.
    """
    from klrubench.machine import list_machines, load_machine

    machine = spec["machine"]
    if machine["name"] not in list_machines():
        raise UsageError(f"machine {machine['name']} came from a file; run: {spec['machine']['name']}.toml")
    plain = load_machine(machine["name"])
    words = ["-w", spec["workload"]["label"]]
    words += ["-m", machine["name"]] if machine["name"] != "cxl-asic" else []
    if ratio_text(machine["ratio"]) != ratio_text(plain.ratio) and machine["ratio"]:
        words += ["--ratio", ratio_text(machine["ratio"])]
    if machine["kernel"] != plain.kernel:
        words += ["--kernel", machine["kernel"]]
    if machine["hz"] != plain.hz:
        words += ["--hz", str(machine["hz"])]
    plain = load_machine(machine["name"], kernel=machine["kernel"], hz=machine["hz"])
    for name, value in machine["sysctls"].items():
        if plain.sysctls.get(name) != value:
            words += ["--sysctl", f"{name}={value}"]
    for name, cost in machine["costs"].items():
        if cost["ns"] != plain.costs[name].ns:
            words += ["--cost", f"{name}={cost['ns']!r}ns"]
    if spec["options"].get("daemon_cpus", "spare") != "spare":
        words += ["--daemon-cpus", spec["options"]["daemon_cpus"]]
    if spec["duration_s"] != 120.0:
        words += ["--duration", f"{spec['duration_s']:g}"]
    return [*words, "--scale", "1" if spec["fold"] == 1 else f"1/{spec['fold']}"]


def command_of(record: Mapping[str, Any]) -> str:
    """The command line that repeats a stored run; where a machine file is needed, the one that was typed."""
    spec = record["spec"]
    try:
        words = ["klrubench", "run", "-p", spec["policy"]["label"], *work_words(spec), "--seed", str(spec["seed"])]
    except UsageError:
        return str(record["manifest"].get("command", ""))
    return shlex.join(words)


def store_at(folder: Path | str) -> Store:
    """An existing results folder.

    Raises:
        UsageError: there is no run in it.
    """
    store = Store(Path(folder))
    if not store.ids():
        raise UsageError(f"no stored runs in {folder} (a results folder has runs/ in it)")
    return store
