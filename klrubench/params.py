"""Parameters declared once: defaults, command line, validation, `describe` and search space come from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, get_type_hints

from klrubench.errors import ParameterError, UnknownNameError


@dataclass(frozen=True)
class Param:
    """One declared parameter of a policy or workload.

    Attributes:
        default: value when none is given.
        low, high: inclusive range of legal values (numbers only).
        log: whether a search should walk the range in its logarithm.
        choices: the legal values, when there are only a few.
        help: what it means, in a few words.
        origin: where the default comes from (kernel constant, paper).
        unit: unit of the value where the name does not say it.
        tune: whether a sweep may choose it; not for a kernel's version or a condition of the model.
    """

    default: Any
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    help: str = ""
    origin: str = ""
    unit: str = ""
    tune: bool = True

    def range_text(self) -> str:
        """The legal values as `describe` prints them."""
        if self.choices is not None:
            return ", ".join(str(choice) for choice in self.choices)
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            return f"{_plain(self.low)} or more"
        return f"{_plain(self.low)}-{_plain(self.high)}{' log' if self.log else ''}"

    def typed(self, value: Any) -> Any:
        """The choice that a typed word stands for: `mode=2` on a command line is text."""
        return next((choice for choice in self.choices or () if str(choice) == value), value)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.15g}"


def param(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    choices: tuple[Any, ...] | None = None,
    help: str = "",
    origin: str = "",
    unit: str = "",
    tune: bool = True,
) -> Any:
    """Declare a parameter in a class body: `interval_ms: float = param(2000, low=10, high=60_000)`."""
    return Param(default, low, high, log, choices, help, origin, unit, tune)


class Parameterised:
    """Base of policies and workloads: keyword arguments are checked against the declared parameters.

    Class attributes:
        implies: what a choice of one parameter means for others that are not given:
            `{"preset": {"rfc-v1": {"interval_ms": 4000}}}`. Earlier entries may choose for later ones;
            what is typed wins.
        explains: what the choices of a parameter mean, for `describe`: `{"variant": {"clean": "no side effects"}}`.
            What a choice implies is added there and need not be said.

    Raises:
        ParameterError: a value is of the wrong type or out of range (all faults in one line).
        UnknownNameError: no such parameter.
    """

    parameters: ClassVar[dict[str, Param]] = {}
    implies: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    explains: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    kind: ClassVar[str] = "component"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Param)}
        cls.parameters = {**cls.parameters, **own}
        for name, declared in own.items():
            setattr(cls, name, declared.default)

    def __init__(self, **values: Any) -> None:
        self.values = validate(type(self), values)
        for name, value in self.values.items():
            setattr(self, name, value)

    @classmethod
    def name(cls) -> str:
        """The name a person types: that of the file, given by the loader."""
        return getattr(cls, "_registered_name", cls.__name__.lower())

    def label(self) -> str:
        """Name and the parameters that differ from what they would be by themselves: `klruscand:interval_ms=500`."""
        said: dict[str, Any] = {}
        for name in [*self.implies, *self.values]:
            if self.values[name] != resolve(type(self), said)[name]:
                said[name] = self.values[name]
        changed = [f"{k}={_show(v)}" for k, v in self.values.items() if k in said]
        return self.name() + (":" + ",".join(changed) if changed else "")


def _show(value: Any) -> str:
    return _plain(value) if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def resolve(cls: type[Parameterised], given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters: the given ones, then what choices imply, then the defaults."""
    values = dict(given)
    for name, meanings in cls.implies.items():
        chosen = values.get(name, cls.parameters[name].default)
        meaning = meanings.get(chosen, {}) if isinstance(chosen, str) else {}
        values = {**meaning, **values}
    return {**{name: declared.default for name, declared in cls.parameters.items()}, **values}


@lru_cache(maxsize=256)
def _model(cls: Any) -> Any:
    from typing import Literal

    from pydantic import ConfigDict, Field, create_model

    hints = get_type_hints(cls)
    fields: dict[str, Any] = {}
    for name, declared in cls.parameters.items():
        kind = Literal[declared.choices] if declared.choices else hints.get(name, type(declared.default))
        fields[name] = (kind, Field(declared.default, ge=declared.low, le=declared.high))
    config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)
    return create_model(f"{cls.__name__}Parameters", __config__=config, **fields)


def validate(cls: type[Parameterised], values: dict[str, Any]) -> dict[str, Any]:
    """The full set of parameter values, defaults filled in, each of its declared type."""
    from pydantic import ValidationError

    for name in values:
        if name not in cls.parameters:
            raise UnknownNameError(f"parameter of {cls.kind} {cls.name()}", name, cls.parameters)
    values = resolve(cls, {name: cls.parameters[name].typed(value) for name, value in values.items()})
    owner: Any = cls
    try:
        return dict(_model(owner)(**values).model_dump(mode="json"))
    except ValidationError as error:
        faults = [_fault(cls, fault) for fault in error.errors(include_url=False)]
        raise ParameterError("; ".join(faults)) from None


def _fault(cls: type[Parameterised], fault: Any) -> str:
    name = ".".join(str(part) for part in fault["loc"][:1])
    legal = cls.parameters[name].range_text() if name in cls.parameters else ""
    reason = str(fault["msg"])[0].lower() + str(fault["msg"])[1:]
    return f"{cls.name()}.{name}={fault['input']!r}: {reason}{f' (legal: {legal})' if legal else ''}"


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """Split `NAME[:k=v,...]` as typed on a command line into a name and raw parameter values."""
    name, _, rest = text.partition(":")
    values: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise ParameterError(f"'{item}' in '{text}': write NAME:key=value,key=value")
        values[key.strip()] = value.strip()
    return name.strip(), values
