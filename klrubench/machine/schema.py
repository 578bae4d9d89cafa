"""The form of a machine's TOML file and of the cost table, checked key by key."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from klrubench.errors import ParameterError, UnknownNameError
from klrubench.machine.kernel import version_tuple
from klrubench.machine.model import MAX_NODES

Model = TypeVar("Model", bound=BaseModel)


def _one_or_list(value: Any) -> Any:
    if isinstance(value, list):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("give a number, or a list with a number for each node")
    return [value]


def _finite_int(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > 1 << 62:
        raise ValueError("too large")
    return value


def _one_line(text: str) -> str:
    # Non-ASCII text would break the plain-ASCII tables that show it.
    if not re.fullmatch(r"[ -~]{1,300}", text):
        raise ValueError("use one line of 1-300 plain ASCII characters")
    return text


def _node_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,15}", text):
        raise ValueError("use a letter, then at most 15 letters, digits, '_', '.' or '-'")
    return text


def _version(text: str) -> str:
    try:
        version_tuple(text)
    except ParameterError as error:
        raise ValueError(str(error)) from None
    return text


Text = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, AfterValidator(_node_name)]
Version = Annotated[str, AfterValidator(_version)]
Time = Annotated[float, BeforeValidator(_finite_int), Field(ge=0, le=1e9)]
Count = Annotated[float, BeforeValidator(_finite_int), Field(ge=0, le=1e9)]
Latency = Annotated[float, BeforeValidator(_finite_int), Field(gt=0, le=1e6)]
Latencies = Annotated[list[Latency], BeforeValidator(_one_or_list), Field(min_length=1, max_length=MAX_NODES)]
Bandwidth = Annotated[float, BeforeValidator(_finite_int), Field(ge=0.01, le=1e6)]
Part = Annotated[float, BeforeValidator(_finite_int), Field(ge=1e-6, le=1e6)]
Capacity = Annotated[float, BeforeValidator(_finite_int), Field(gt=0, le=1e6)]
Alpha = Annotated[float, BeforeValidator(_finite_int), Field(ge=0, le=100)]
Beta = Annotated[float, BeforeValidator(_finite_int), Field(ge=0.1, le=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class UnitEntry(_Strict):
    """A scale: nanoseconds an instruction, with its range."""

    ns_per_instruction: Time
    low: Time | None = None
    high: Time | None = None
    source: Text

    @model_validator(mode="after")
    def _ordered(self) -> UnitEntry:
        value, low, high = self.scales()
        if not low <= value <= high:
            raise ValueError(f"{value:g} is outside its range {low:g}-{high:g}")
        return self

    def scales(self) -> tuple[float, float, float]:
        """Value, low and high end, ns an instruction."""
        value = self.ns_per_instruction
        return (
            value,
            value if self.low is None else self.low,
            value if self.high is None else self.high,
        )


class CostEntry(_Strict):
    """A cost: either `instructions` on a `unit`, or `ns`; `before` holds instructions of older kernels."""

    meaning: Text | None = None
    instructions: Count | None = None
    unit: Literal["stream", "miss"] | None = None
    before: dict[Version, Count] = {}
    ns: Time | None = None
    low_ns: Time | None = None
    high_ns: Time | None = None
    source: Text

    @model_validator(mode="after")
    def _one_way(self) -> CostEntry:
        counted = self.instructions is not None and self.unit is not None and self.ns is None
        timed = self.ns is not None and self.instructions is None and self.unit is None and not self.before
        if not counted and not timed:
            raise ValueError("give either instructions and unit, or ns")
        return self


class CostTable(_Strict):
    """Scales and costs: the whole of costs.toml, and what a machine may override."""

    unit: dict[Literal["stream", "miss"], UnitEntry] = {}
    cost: dict[str, CostEntry] = {}


class NodeEntry(_Strict):
    """One NUMA node. Latencies are given once, or for each node with CPUs, or for each node (as home)."""

    name: Name
    tier: int = Field(ge=0, lt=MAX_NODES)
    cpus: int = Field(default=0, ge=0, le=8192)
    capacity_gib: Capacity | None = None
    read_ns: Latencies
    write_ns: Latencies | None = None
    read_gb_s: Bandwidth
    write_gb_s: Bandwidth | None = None
    load_alpha: Alpha = 0.2
    load_beta: Beta = 4.0
    sources: dict[str, Text] = {}


class MachineFile(CostTable):
    """A machine's TOML file."""

    description: Text = "a machine described in a file"
    source: Text = "own file"
    kernel: Version = "6.18"
    hz: int = 1000
    ratio: list[Part] | None = None
    cache_hit_ns: Time = 10.0
    sysctls: dict[str, int] = {}
    sources: dict[str, Text] = {}
    node: list[NodeEntry] = Field(min_length=1, max_length=MAX_NODES)


_PARTS: dict[str, type[BaseModel]] = {"node": NodeEntry, "unit": UnitEntry, "cost": CostEntry}


def parse(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """`data` as a `model`.

    Raises:
        ParameterError: one line with `where` (the file) and each key at fault.
    """
    try:
        return model(**data)
    except ValidationError as error:
        faults = list(dict.fromkeys(_fault(model, fault) for fault in error.errors(include_url=False)))
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ParameterError(f"{where}: {'; '.join(faults[:3])}{more}") from None


def _fault(model: type[BaseModel], fault: Any) -> str:
    path = [part for part in fault["loc"] if part != "[key]"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in path).lstrip(".")
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "extra_forbidden":
        owner = _PARTS.get(str(path[0]), model) if len(path) > 1 else model
        return f"{key}: {UnknownNameError('key', _shown(path[-1]), owner.model_fields)}"
    reason = fault["msg"].removeprefix("Value error, ")
    value = "" if isinstance(fault["input"], (dict, list)) else f" = {_shown(repr(fault['input']))}"
    return f"{key}{value}: {reason[0].lower()}{reason[1:]}"


def _shown(text: object) -> str:
    plain = str(text)
    plain = plain if plain.isprintable() else repr(plain)
    return plain if len(plain) <= 60 else plain[:57] + "..."
