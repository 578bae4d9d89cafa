"""Why a run would be computed: nothing like it is stored, its file is damaged, or something it depends on changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from klrubench.study.spec import RunSpec
from klrubench.study.store import Store


def reasons(runs: list[RunSpec], store: Store) -> dict[str, str]:
    """By run id, why each run that is not stored would be computed."""
    looks = {run.run_id: store.look(run.run_id) for run in runs}
    missing = [run for run in runs if looks[run.run_id] != "stored"]
    set_aside = {path.name.partition(".")[0] for path in store.damaged()}
    alike = _alike(missing, store)
    return {run.run_id: _reason(run, looks[run.run_id], set_aside, alike) for run in missing}


def _reason(run: RunSpec, look: str, set_aside: set[str], alike: Mapping[tuple[Any, ...], list[dict[str, str]]]) -> str:
    if look.startswith("damaged"):
        return look
    if run.run_id in set_aside:
        return "its stored result was damaged and set aside"
    changes = sorted((changed(run.components, known) for known in alike.get(_key(run), [])), key=len)
    return f"changed since it was stored: {', '.join(changes[0])}" if changes else "not in the store"


def changed(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """Names of the components that differ, in the words of `RunSpec.components`."""
    return [name for name, value in now.items() if then.get(name) != value]


def _key(run: RunSpec) -> tuple[Any, ...]:
    return run.workload.label, run.policy.label, run.machine["name"], run.seed


def _alike(missing: list[RunSpec], store: Store) -> dict[tuple[Any, ...], list[dict[str, str]]]:
    """Components of the stored runs that go by the same names as a missing one."""
    wanted = {_key(run) for run in missing}
    found: dict[tuple[Any, ...], list[dict[str, str]]] = {}
    for spec in _specs(store) if wanted else ():
        key = (spec["workload"]["label"], spec["policy"]["label"], spec["machine"]["name"], spec["seed"])
        if key in wanted:
            found.setdefault(key, []).append(spec["components"])
    return found


def _specs(store: Store) -> Iterable[dict[str, Any]]:
    """Specs of the runs that read back; looks before it reads, so that nothing is set aside."""
    for run_id in store.ids():
        if store.look(run_id) == "stored":
            record = store.get(run_id)
            if record is not None:
                yield record["spec"]
