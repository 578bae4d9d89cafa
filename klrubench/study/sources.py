"""Where policies, workloads, machines and costs come from: their own words, message ids, BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from klrubench.errors import UnknownNameError

MESSAGE_ID = re.compile(
    r"\b(20\d{12}|20\d{6})[.-][A-Za-z0-9.+-]*\d(?:-\d+)?(?:-[A-Za-z0-9._+-]+)?(?:@[A-Za-z0-9.-]+\w)?"
)
_KINDS = ("policy", "workload", "machine", "cost")


@dataclass(frozen=True)
class Source:
    """A source as its row states it.

    Attributes:
        kind: `policy`, `workload`, `machine` or `cost`.
        name: the row.
        about: what the row is.
        text: the source in the row's own words; empty where it has none of its own.
    """

    kind: str
    name: str
    about: str
    text: str

    @property
    def message_ids(self) -> list[str]:
        """Message ids on lore.kernel.org in the text."""
        return list(dict.fromkeys(match.group(0).rstrip(".-") for match in MESSAGE_ID.finditer(self.text)))


def sources(names: Iterable[str]) -> list[Source]:
    """The sources of some names, each of whatever kind has that name.

    Raises:
        UnknownNameError: nothing has that name.
    """
    found: list[Source] = []
    for name in names:
        own = [source for kind in _KINDS for source in _of(kind, name.partition(":")[0])]
        if not own:
            raise UnknownNameError("policy, workload, machine or cost", name, known())
        found += own
    return list(dict.fromkeys(found))


def known() -> list[str]:
    """Every name that has a source."""
    from klrubench.machine import list_machines, load_machine
    from klrubench.study.plugins import list_policies, list_workloads

    names = [info.name for info in (*list_policies(), *list_workloads())]
    return [*names, *list_machines(), *load_machine().costs]


def of_runs(records: Iterable[dict[str, Any]]) -> list[str]:
    """The names that stored runs use: policies, workloads, machines, and the costs of these."""
    names: dict[str, dict[str, None]] = {kind: {} for kind in _KINDS}
    for record in records:
        spec = record["spec"]
        names["policy"][spec["policy"]["name"]] = None
        names["workload"][spec["workload"]["name"]] = None
        names["machine"][spec["machine"]["name"]] = None
        names["cost"].update(dict.fromkeys(spec["machine"]["costs"]))
    there = set(known())
    return [name for kind in _KINDS for name in names[kind] if name in there]


def _of(kind: str, name: str) -> Iterator[Source]:
    if kind in ("policy", "workload"):
        yield from _plugin(kind, name)
    elif kind == "machine":
        yield from _machine(name)
    else:
        yield from _cost(name)


def _plugin(kind: str, name: str) -> Iterator[Source]:
    from klrubench.study import plugins

    infos = plugins.list_policies() if kind == "policy" else plugins.list_workloads()
    if any(info.name == name for info in infos):
        made = (plugins.find_policy if kind == "policy" else plugins.find_workload)(name)
        about = " ".join((made.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")
        yield Source(kind, name, about, str(getattr(made, "source", "") or ""))
        calibration = str(getattr(made, "calibration", ""))
        if calibration:
            yield Source(kind, name, "calibration", calibration)


def _machine(name: str) -> Iterator[Source]:
    from klrubench.machine import list_machines, load_machine

    if name in list_machines():
        machine = load_machine(name)
        yield Source("machine", name, machine.description, machine.source)
        for value, text in machine.sources.items():
            yield Source("machine", name, value, text)
        for node in machine.nodes:
            for value, text in node.sources.items():
                yield Source("machine", name, f"{node.name} {value}", text)


def _cost(name: str) -> Iterator[Source]:
    from klrubench.machine import load_machine

    cost = load_machine().costs.get(name)
    if cost is not None:
        yield Source("cost", name, f"{cost.meaning or 'cost'}, {cost.ns:.3g} ns", cost.source)


def bibtex(found: Iterable[Source], version: str) -> str:
    """An entry for klrubench, one for each message id, and one for each other text; nothing is added to the words."""
    entries = [_entry("software", "klrubench", {"title": "klrubench", "version": version})]
    rows: dict[str, list[Source]] = {}
    for source in found:
        for key in source.message_ids or ([source.text] if source.text else []):
            rows.setdefault(key, []).append(source)
    for key, users in rows.items():
        texts = dict.fromkeys(user.text for user in users)
        names = ", ".join(dict.fromkeys(f"{user.kind} {user.name}" for user in users))
        fields = {"title": next(iter(texts)), "note": f"source of {names}"}
        if MESSAGE_ID.fullmatch(key):
            fields = {"title": next(iter(texts)), "year": key[:4], "howpublished": f"\\url{{{lore(key)}}}"}
            fields["note"] = f"mailing list; source of {names}"
        entries.append(_entry("misc", f"{users[0].name}-{len(entries)}", fields))
    return "\n\n".join(entries)


def lore(message_id: str) -> str:
    """Address of a message; of a search for it where the id is given without its host."""
    return (
        f"https://lore.kernel.org/all/{message_id}/"
        if "@" in message_id
        else f"https://lore.kernel.org/all/?q={message_id}"
    )


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{value if name == 'howpublished' else _tex(value)}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def _tex(text: str) -> str:
    for mark in "\\{}":
        text = text.replace(mark, " ")
    for mark in "&%$#_":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
