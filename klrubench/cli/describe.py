"""`klrubench describe NAME`: a policy, a workload or a machine on a card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from klrubench.cli.options import Json


def command(
    name: Annotated[
        str, typer.Argument(metavar="NAME[:k=v,...]", help="policy:NAME, workload:NAME or machine:NAME says which.")
    ],
    as_json: Json = False,
) -> None:
    """Describe a policy, workload or machine.

    Origin, parameters, what it sees and what it is blind to; of a machine every number with its source.
    With values, what differs from the defaults then.

    \b
    Examples:
      klrubench describe klruscand
      klrubench describe klruscand:preset=pghot-v3
      klrubench describe machine:cxl-asic
      klrubench describe kv --json
    """
    from klrubench.cli.output import emit, emit_json, width

    kind, plain = _find(name)
    if kind == "machine":
        info, text = _machine(plain)
    else:
        info, text = _component(kind, plain, width())
    if as_json:
        emit_json(info)
    else:
        emit(text)


def _find(name: str) -> tuple[str, str]:
    """The kind that a name belongs to; a name of several kinds has to say which."""
    from klrubench.errors import UnknownNameError, UsageError

    known = {kind: names() for kind, names in _KINDS.items()}
    kind, colon, plain = name.partition(":")
    if colon and kind in known:
        return kind, plain
    if name.endswith(".toml") or "/" in name:
        return "machine", name
    found = [kind for kind, names in known.items() if kind and kind != name and name.partition(":")[0] in names]
    if len(found) > 1:
        raise UsageError(
            f"'{name}' is a {' and a '.join(found)}: write {' or '.join(f'{one}:{name}' for one in found)}"
        )
    if not found:
        everything = {one for names in known.values() for one in names}
        raise UnknownNameError("policy, workload or machine", name, everything, "klrubench list")
    return found[0], name


def _names(kind: str) -> Callable[[], list[str]]:
    def names() -> list[str]:
        from klrubench.study import plugins

        infos = plugins.list_policies() if kind == "policy" else plugins.list_workloads()
        return [info.name for info in infos]

    return names


def _machine_names() -> list[str]:
    from klrubench.machine import list_machines

    return list_machines()


_KINDS: dict[str, Callable[[], list[str]]] = {
    "policy": _names("policy"),
    "workload": _names("workload"),
    "machine": _machine_names,
}


def _machine(name: str) -> tuple[dict[str, Any], str]:
    from klrubench.machine import load_machine

    machine = load_machine(name)
    return machine.to_dict(), "\n".join(machine.describe_lines())


def _component(kind: str, text: str, width: int) -> tuple[dict[str, Any], str]:
    from klrubench.params import parse_spec
    from klrubench.report.describe import component_info, component_text
    from klrubench.study.plugins import find_policy, find_workload
    from klrubench.workload import Workload

    name, values = parse_spec(text)
    component = find_policy(name) if kind == "policy" else find_workload(name)
    info = component_info(component, None if kind == "policy" else Workload.parameters)
    if values:
        made, declared = component(**values), component.parameters
        info["set"] = {key: value for key, value in made.values.items() if value != declared[key].default}
    return info, component_text(info, width)
