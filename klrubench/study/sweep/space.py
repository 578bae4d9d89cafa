"""What a sweep may choose: a policy's own parameters and ranges, narrowed by what is typed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_type_hints

from klrubench.errors import ParameterError, UnknownNameError, UsageError
from klrubench.params import Param, Parameterised

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DIGITS = 3
"""Significant digits of a sampled number that is no integer: 640, not 640.3178, is what a person will set."""


@dataclass(frozen=True)
class Axis:
    """One parameter that a sweep chooses.

    Attributes:
        name: the parameter's.
        low, high: inclusive range of a number.
        log: the range is walked in its logarithm.
        whole: only integers.
        choices: the values of a categorical parameter; then there is no range.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def distribution(self) -> BaseDistribution:
        """The same range in the sampler's words."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, drawn: Any) -> Any:
        """What the policy gets for a drawn value: numbers with three significant digits, inside the range."""
        if self.choices or self.whole:
            return drawn
        return min(self.high, max(self.low, float(f"{drawn:.{DIGITS}g}")))

    def clipped(self, value: Any) -> Any:
        """The nearest legal value: a default outside a narrowed range begins at its edge."""
        if self.choices:
            return value if value in self.choices else self.choices[0]
        held = min(self.high, max(self.low, value))
        return round(held) if self.whole else float(held)

    def at(self, part: float) -> Any:
        """The value at a share 0..1 of the range, on its own scale (choices: by their order)."""
        if self.choices:
            return self.choices[min(len(self.choices) - 1, int(part * len(self.choices)))]
        found = self.low + part * (self.high - self.low)
        if self.log:
            found = math.exp(math.log(self.low) + part * math.log(self.high / self.low))
        return self.clipped(round(found)) if self.whole else self.value(found)

    def part(self, value: Any) -> float:
        """Where a value lies in the range, 0..1 on its own scale."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if self.high <= self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def text(self) -> str:
        """As `--param` takes it: `interval_ms=10:60000:log`."""
        if self.choices:
            return f"{self.name}={'/'.join(_shown(choice) for choice in self.choices)}"
        return f"{self.name}={self.low:.15g}:{self.high:.15g}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Space:
    """All that varies, and what is held.

    Attributes:
        axes: the parameters that a sampler chooses.
        fixed: values that every trial has.
        defaults: the policy's values with only `fixed` set: where a sweep begins, and what it is judged against.
    """

    axes: tuple[Axis, ...]
    fixed: dict[str, Any]
    defaults: dict[str, Any]

    def distributions(self) -> dict[str, BaseDistribution]:
        """The axes in the sampler's words, by name."""
        return {axis.name: axis.distribution() for axis in self.axes}

    def values(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The policy's parameters for drawn values."""
        return {**self.fixed, **{axis.name: axis.value(drawn[axis.name]) for axis in self.axes}}

    def start(self) -> dict[str, Any]:
        """The defaults as a drawn point (clipped into a narrowed range)."""
        return {axis.name: axis.clipped(self.defaults[axis.name]) for axis in self.axes}

    def axis(self, name: str) -> Axis | None:
        """The axis of that name, if it is searched."""
        return next((axis for axis in self.axes if axis.name == name), None)

    def with_ends(self, name: str, low: float, high: float) -> Space:
        """The same with other ends for one axis."""
        return replace(self, axes=tuple(replace(a, low=low, high=high) if a.name == name else a for a in self.axes))

    def to_record(self) -> dict[str, Any]:
        """What is kept of it: ranges as text, fixed values."""
        return {"axes": [axis.text() for axis in self.axes], "fixed": dict(self.fixed)}


def space_of(
    cls: type[Parameterised], given: Mapping[str, Any], narrowed: Sequence[str], fixed: Mapping[str, Any]
) -> Space:
    """The search space of a policy.

    Args:
        cls: the policy; parameters with a range or choices that a person can tune are searched.
        given: values from `NAME:k=v`, held like `fixed`.
        narrowed: `NAME=LOW:HIGH[:log|:lin]`, `NAME=A/B/C`, or `NAME` alone for one that is not searched by itself.
        fixed: values from `--fix`.

    Raises:
        UnknownNameError: no such parameter.
        ParameterError: a range or value that is not legal.
        UsageError: nothing is left to search.
    """
    held = {**given, **fixed}
    made = cls(**held)
    axes = {name: axis for name in cls.parameters if (axis := declared_axis(cls, name)) and cls.parameters[name].tune}
    for text in narrowed:
        axis = _typed_axis(cls, text)
        if axis.name in held:
            raise ParameterError(f"{axis.name} is held at {held[axis.name]} and searched too: drop --fix or --param")
        axes[axis.name] = axis
    left = tuple(axis for name, axis in axes.items() if name not in held)
    if not left:
        raise UsageError(f"policy {cls.name()} has nothing to search; klrubench describe {cls.name()} lists parameters")
    return Space(left, {name: made.values[name] for name in held}, made.values)


def declared_axis(cls: type[Parameterised], name: str) -> Axis | None:
    """The axis that a parameter's own declaration makes; `None` where it has neither a range nor choices."""
    declared = cls.parameters[name]
    kind = get_type_hints(cls).get(name, type(declared.default))
    if kind is bool:
        return Axis(name, choices=(False, True))
    if declared.choices is not None:
        return Axis(name, choices=tuple(declared.choices)) if len(declared.choices) > 1 else None
    if declared.low is None or declared.high is None or kind not in (int, float):
        return None
    log = declared.log and declared.low > 0
    return Axis(name, float(declared.low), float(declared.high), log, whole=kind is int)


def _typed_axis(cls: type[Parameterised], text: str) -> Axis:
    name, equals, words = (part.strip() for part in text.partition("="))
    if name not in cls.parameters:
        raise UnknownNameError(f"parameter of {cls.kind} {cls.name()}", name, cls.parameters)
    axis = declared_axis(cls, name)
    if axis is None:
        raise ParameterError(f"--param {name}: it has neither a range nor choices; set it with --fix {name}=VALUE")
    if not equals:
        return axis
    return _typed_choices(cls, axis, words) if axis.choices else _typed_range(axis, words, cls.parameters[name])


def _typed_choices(cls: type[Parameterised], axis: Axis, words: str) -> Axis:
    declared = cls.parameters[axis.name]
    known = {_shown(choice): choice for choice in axis.choices}
    picked = [word.strip() for word in words.split("/") if word.strip()]
    wrong = next((word for word in picked if word not in known), None)
    if wrong is not None or len(picked) < 2:
        legal = declared.range_text() or "false, true"
        raise ParameterError(f"--param {axis.name}={words}: write two or more of its values as A/B/C (legal: {legal})")
    return replace(axis, choices=tuple(known[word] for word in dict.fromkeys(picked)))


def _typed_range(axis: Axis, words: str, declared: Param) -> Axis:
    parts = words.split(":")
    scale = parts.pop().strip() if parts[-1].strip() in ("log", "lin") else ""
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise ParameterError(f"--param {axis.name}={words}: write LOW:HIGH or LOW:HIGH:log") from None
    if not axis.low <= low < high <= axis.high:
        raise ParameterError(f"--param {axis.name}={words}: not a range inside {declared.range_text()}")
    log = axis.log if not scale else scale == "log"
    if log and low <= 0:
        raise ParameterError(f"--param {axis.name}={words}: a log range begins above 0")
    if axis.whole:
        low, high = math.ceil(low), math.floor(high)
    return replace(axis, low=float(low), high=float(high), log=log)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
