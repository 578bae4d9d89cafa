"""A run as plain data: machine x workload x policy x seed, resolved, with the id that names its result."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from klrubench.errors import ParameterError, ScaleError, UnknownNameError
from klrubench.params import Parameterised, parse_spec
from klrubench.policy import Policy
from klrubench.study.identity import RESULT_SCHEMA, canonical, digest, framework_hashes, plugin_hash, without_words
from klrubench.study.loader import PluginSource
from klrubench.study.plugins import load, policy_source, workload_source
from klrubench.workload import Workload

if TYPE_CHECKING:
    from klrubench.machine import Machine

AUTO_ACCESSES = 6e7
"""Simulated accesses of a run that `--scale auto` aims at."""

AUTO_FOLD_LIMIT = 512
"""Highest fold that `--scale auto` chooses: the smallest per-wake budget of 512 pages is then still one page."""


INVISIBLE_OPTIONS = ("chunk",)
"""Options that cannot change a result."""


@dataclass(frozen=True)
class Part:
    """A policy or workload with its full set of parameters, as plain data.

    Attributes:
        label: name and the parameters that differ from their defaults, as a person types it.
        params: every parameter's resolved value.
        content: hash of outside input (a trace's), empty if there is none.
        facts: what tables say of it (role, sysctls ...); no part of the identity.
    """

    kind: str
    name: str
    label: str
    params: dict[str, Any]
    source: PluginSource
    content: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        """The policy or workload object, in this process."""
        return load(self.source)(**self.params)

    def to_record(self) -> dict[str, Any]:
        """What the store keeps of it."""
        words = {"name": self.name, "label": self.label, "params": self.params, "content": self.content}
        return {**words, "facts": self.facts, "path": self.source.files[0][0], "code": plugin_hash(self.source)}


def policy_part(text: str) -> Part:
    """Resolve `NAME[:k=v,...]`; raises UnknownNameError, ParameterError or UsageError with one clear line."""
    name, values = parse_spec(text)
    return _part(policy_source(name), values)


def workload_part(text: str, **more: Any) -> Part:
    """Resolve `NAME[:k=v,...]`, with `more` parameters on top; raises like `policy_part`."""
    name, values = parse_spec(text)
    return _part(workload_source(name), {**values, **more})


def varied(part: Part, values: dict[str, Any]) -> Part:
    """The same plug-in with these parameters (all others at their defaults); raises ParameterError or UsageError."""
    return _part(part.source, values)


def _part(source: PluginSource, values: dict[str, Any]) -> Part:
    made: Parameterised = load(source)(**values)
    content = made.content() if isinstance(made, Workload) else ""
    return Part(source.kind, source.name, made.label(), made.values, source, _content_hash(content), _facts(made))


def _facts(made: Parameterised) -> dict[str, Any]:
    if isinstance(made, Workload):
        return {"control": made.control, "seeds_change": made.seeds_change, "calibration": made.calibration}
    if not isinstance(made, Policy):
        return {}
    # a kernel can run what neither asks for the future nor buys other memory: only such a policy can be the best
    feasible = made.place is None and not made.needs_truth
    return {"role": made.role, "sysctls": dict(made.sysctls), "contestant": feasible, "interval_ms": _interval_ms(made)}


def _interval_ms(policy: Policy) -> float | None:
    value = policy.values.get("interval_ms")
    return float(value) if value is not None else None


def _content_hash(content: Any) -> str:
    if isinstance(content, str):
        return digest(content) if content else ""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@dataclass(frozen=True)
class RunSpec:
    """One run, resolved and picklable: the same spec gives the same result bytes wherever it is executed.

    Attributes:
        machine: `Machine.to_dict()`.
        duration_s: seconds that the work takes on an unloaded all-DRAM machine.
        fold: full-size pages that share a simulated one (a power of two; scale 1/fold).
        options: every field of `klrubench.simulate.Options`.
        framework: hash of each room of the framework (`identity.framework_hashes`).
        work: simulated accesses, estimated; orders the queue, no part of the identity.
    """

    machine: dict[str, Any]
    workload: Part
    policy: Part
    seed: int
    duration_s: float
    fold: int
    options: dict[str, Any]
    framework: dict[str, str] = field(default_factory=framework_hashes)
    work: float = 0.0

    @cached_property
    def components(self) -> dict[str, str]:
        """Hash of each part of the identity, by the words in which a difference is reported."""
        code = {f"{room} code": value for room, value in self.framework.items()}
        return {
            "machine": digest(canonical(without_words(self.machine))),
            "workload": digest(self.workload.name, canonical(self.workload.params)),
            "workload content": digest(self.workload.content),
            "workload code": plugin_hash(self.workload.source),
            "policy": digest(self.policy.name, canonical(self.policy.params)),
            "policy code": plugin_hash(self.policy.source),
            "seed": str(self.seed),
            "duration": repr(float(self.duration_s)),
            "scale": f"1/{self.fold}",
            "options": digest(canonical({k: v for k, v in self.options.items() if k not in INVISIBLE_OPTIONS})),
            "result schema": str(RESULT_SCHEMA),
            **code,
        }

    @cached_property
    def run_id(self) -> str:
        """blake2b-128 of everything that can change the result (32 hex digits)."""
        return digest(canonical(self.components))

    @property
    def title(self) -> str:
        """How messages name the run."""
        return f"{self.workload.label}/{self.policy.label} seed {self.seed}"

    @cached_property
    def group(self) -> str:
        """Runs of one group meet the same stream on the same machine."""
        same = ("machine", "workload", "workload content", "workload code", "seed", "duration", "scale")
        return digest(*(self.components[name] for name in same))

    def to_record(self) -> dict[str, Any]:
        """The spec as the store keeps it: resolved values and hashes, the machine's numbers, no source text."""
        return {
            "machine": without_words(self.machine),
            "workload": self.workload.to_record(),
            "policy": self.policy.to_record(),
            "seed": self.seed,
            "duration_s": self.duration_s,
            "fold": self.fold,
            "options": self.options,
            "components": self.components,
        }


def make_spec(
    machine: Machine,
    workload: Part,
    policy: Part,
    seed: int = 1,
    *,
    duration_s: float = 120.0,
    fold: int | None = None,
    options: dict[str, Any] | None = None,
    full: float | None = None,
) -> RunSpec:
    """Resolve one run; `fold=None` chooses the scale so that it is about 6e7 accesses.

    `full` saves computing `full_accesses` again where it is known.
    """
    full = full_accesses(machine, workload, duration_s) if full is None else full
    chosen = auto_fold(full) if fold is None else fold
    resolved = resolve_options(options or {})
    return RunSpec(machine.to_dict(), workload, policy, seed, float(duration_s), chosen, resolved, work=full / chosen)


def full_accesses(machine: Machine, workload: Part, duration_s: float) -> float:
    """Full-size accesses of a run: touches a page and second x pages x seconds at work."""
    from klrubench.simulate.timing import resolve_timing, simulated_touches

    tenants = workload.build().tenants()
    return float(sum(simulated_touches(resolve_timing(machine, each), each, duration_s, fold=1) for each in tenants))


def auto_fold(full: float, aim: float = AUTO_ACCESSES) -> int:
    """The power of two that brings `full` accesses nearest to `aim` (by ratio), from 1 to 512."""
    fold = 1
    while fold < AUTO_FOLD_LIMIT and full / fold > aim * 2**0.5:
        fold *= 2
    return fold


def parse_scale(text: str | int | float | None) -> int | None:
    """The fold that `--scale` means: `auto` or None -> None, `1` -> 1, `1/32` (or 0.03125) -> 32.

    Raises:
        ScaleError: not 1 over a power of two.
    """
    if text is None or text == "auto":
        return None
    try:
        above, _, below = str(text).partition("/")
        fold = float(below or 1) / float(above)
    except (ValueError, ZeroDivisionError):
        fold = 0.0
    if not (1 <= fold <= 1 << 20 and fold.is_integer() and (int(fold) & (int(fold) - 1)) == 0):
        raise ScaleError(f"scale '{text}': write auto, 1, 1/2, 1/4 ... (1 over a power of two)")
    return int(fold)


def resolve_options(given: dict[str, Any]) -> dict[str, Any]:
    """All simulation options, defaults filled in.

    Raises:
        UnknownNameError: no such option.
        ParameterError: an impossible value.
    """
    from klrubench.simulate import Options

    known = [each.name for each in dataclasses.fields(Options)]
    for name in given:
        if name not in known:
            raise UnknownNameError("option", name, known)
    try:
        return dataclasses.asdict(Options(**given))
    except (TypeError, ValueError) as error:
        raise ParameterError(str(error)) from None
