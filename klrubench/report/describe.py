"""What `describe` prints: facts of a policy or workload, from its declarations alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from klrubench.params import Param, Parameterised
from klrubench.report.text import WIDTH, Column, table, wrapped

_LABEL = 14
_POLICY_FACTS = ("source", "status", "chain", "sees", "blind", "not_modelled")
_WORKLOAD_FACTS = ("source", "calibration", "seeds_change")
_WORDS = {"blind": "blind when", "not_modelled": "not modelled", "seeds_change": "seeds change"}


def component_info(component: type[Parameterised], shared: Mapping[str, Param] | None = None) -> dict[str, Any]:
    """The facts of a policy or workload class as plain data.

    Args:
        component: the class, as its loader gives it.
        shared: parameters that all of its kind have; they are listed apart.
    """
    names = _POLICY_FACTS if component.kind == "policy" else _WORKLOAD_FACTS
    facts = {name: getattr(component, name, "") for name in names}
    listed = [_parameter(name, declared) for name, declared in component.parameters.items()]
    own = [item for item in listed if item["name"] not in (shared or {})]
    return {
        "kind": component.kind,
        "name": component.name(),
        "summary": _summary(component),
        "text": _body(component),
        **{name: text for name, text in facts.items() if text},
        **({"role": component.role} if hasattr(component, "role") else {}),
        **({"control": True} if getattr(component, "control", False) else {}),
        "sysctls": dict(getattr(component, "sysctls", {})),
        "parameters": own,
        "shared_parameters": [item for item in listed if item not in own],
        **({"choices": choices} if (choices := _choices(component)) else {}),
    }


def _summary(component: type) -> str:
    return _document(component).partition("\n\n")[0].replace("\n", " ").rstrip(".")


def _body(component: type) -> str:
    body = _document(component).partition("\n\n")[2]
    return " ".join(body.split())


def _document(component: type) -> str:
    own = component.__dict__.get("__doc__") or ""
    return inspect.cleandoc(own)


def _choices(component: type[Parameterised]) -> dict[str, dict[str, str]]:
    """By parameter and choice: what it means, then what it implies for other parameters."""
    meanings: dict[str, dict[str, str]] = {}
    for name, declared in component.parameters.items():
        told, implied = component.explains.get(name, {}), component.implies.get(name, {})
        both = {
            choice: "; ".join(filter(None, [told.get(choice, ""), _settings(implied.get(choice, {}))]))
            for choice in dict.fromkeys([*(declared.choices or ()), *told])
            if choice in told or choice in implied
        }
        meanings |= {name: both} if both else {}
    return meanings


def _parameter(name: str, declared: Param) -> dict[str, Any]:
    return {
        "name": name,
        "default": declared.default,
        "low": declared.low,
        "high": declared.high,
        "log": declared.log,
        "choices": list(declared.choices) if declared.choices is not None else None,
        "range": declared.range_text(),
        "meaning": declared.help + (f" ({declared.unit})" if declared.unit else ""),
        "from": declared.origin,
    }


def component_text(info: Mapping[str, Any], width: int = WIDTH) -> str:
    """A policy or workload in the form of a card: facts, then the table of parameters."""
    lines = _fact(str(info["name"]), str(info["summary"]) or "(no description)", width)
    lines += _fact("", str(info.get("text", "")), width) if info.get("text") else []
    lines += _fact("kind", _kind(info), width)
    lines += _fact("set", _settings(info["set"]), width) if info.get("set") else []
    for name in ("source", "status", "chain"):
        lines += _fact(name, str(info[name]), width) if info.get(name) else []
    lines += _fact("sysctls", _settings(info["sysctls"]), width) if info.get("sysctls") else []
    lines += parameter_table(info["parameters"], width)
    choices: Mapping[str, Mapping[str, str]] = info.get("choices", {})
    explained = [line for name, meanings in choices.items() for line in _meanings(name, meanings, width)]
    lines += ["", *explained, ""] if explained else []
    for name in ("sees", "blind", "not_modelled", "calibration", "seeds_change"):
        lines += _fact(_WORDS.get(name, name), str(info[name]), width) if info.get(name) else []
    if info.get("shared_parameters"):
        lines += ["", f"parameters that every {info['kind']} has"]
        lines += parameter_table(info["shared_parameters"], width)
    return "\n".join([*lines, "", *_example(info, width)])


def _kind(info: Mapping[str, Any]) -> str:
    words = {"policy": "policy", "bound": "policy (a bound, not a contestant)", "control": "policy (a control)"}
    if info["kind"] == "policy":
        return words.get(str(info.get("role")), str(info.get("role")))
    return f"{info['kind']}{' (a negative control: left out of medians)' if info.get('control') else ''}"


def _example(info: Mapping[str, Any], width: int) -> list[str]:
    letter = "p" if info["kind"] == "policy" else "w"
    item = next((item for item in [*info["parameters"], *info.get("shared_parameters", [])]), None)
    values = f":{item['name']}={_value(item['default'])}" if item else ""
    return _fact("try", f"klrubench compare -{letter} {info['name']}{values}", width)


def _fact(label: str, text: str, width: int) -> list[str]:
    first, *rest = wrapped(text, width - _LABEL)
    return [f"{label:<{_LABEL - 1}} {first}".rstrip(), *(" " * _LABEL + line for line in rest)]


def _meanings(name: str, meanings: Mapping[str, str], width: int) -> list[str]:
    """A parameter's choices, each with what it means beside it."""
    heads = [name] + [""] * (len(meanings) - 1)
    room = max(map(len, meanings)) + 2
    lines = []
    for head, (choice, meaning) in zip(heads, meanings.items(), strict=True):
        first, *rest = wrapped(meaning, width - _LABEL - room)
        lines.append(f"{head:<{_LABEL - 1}} {choice:<{room}}{first}")
        lines += [" " * (_LABEL + room) + line for line in rest]
    return lines


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def parameter_table(parameters: Sequence[Mapping[str, Any]], width: int = WIDTH) -> list[str]:
    """Name, default, range, meaning and origin of each parameter; long texts take several lines.

    Where there is little room the origin follows the meaning in brackets.
    """
    if not parameters:
        return _fact("parameters", "none", width)
    apart = width >= 90
    texts = [[str(item["range"]), _meaning(item, apart), str(item["from"]) if apart else ""] for item in parameters]
    names = Column(("parameter",), [str(item["name"]) for item in parameters], left=True, gap=0)
    defaults = Column(("default",), [_value(item["default"]) for item in parameters])
    room = width - names.space - defaults.space - 6
    rows = _several_lines(names.cells, defaults.cells, texts, _widths(texts, room))
    heads = ("parameter", "default", "range", "meaning", "from")
    columns = [Column((head,), [row[at] for row in rows], left=at != 1, gap=_GAPS[at]) for at, head in enumerate(heads)]
    return table([column for column in columns if any(column.cells)])


_GAPS = (0, 1, 2, 2, 2)


def _meaning(item: Mapping[str, Any], apart: bool) -> str:
    return str(item["meaning"]) if apart or not item["from"] else f"{item['meaning']} [{item['from']}]"


def _widths(texts: Sequence[Sequence[str]], room: int) -> tuple[int, int, int]:
    """Columns for range, meaning and origin: what they need up to a third each, the meaning all of the rest."""
    ranges, _, origins = (max(len(row[at]) for row in texts) for at in range(3))
    first, last = min(max(ranges, 5), room // 3), min(max(origins, 4 if origins else 0), room // 3)
    return first, max(12, room - first - last), max(1, last)


def _several_lines(
    names: Sequence[str], defaults: Sequence[str], texts: Sequence[Sequence[str]], widths: Sequence[int]
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, default, own in zip(names, defaults, texts, strict=True):
        cells = [[name], [default], *(wrapped(text, width) for text, width in zip(own, widths, strict=True))]
        rows += zip_longest(*cells, fillvalue="")
    return rows
