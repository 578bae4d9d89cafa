"""What to compare, as data: suites that come along, study files, and what is given on top; lists are axes."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from klrubench.errors import ParameterError, UnknownNameError, UsageError
from klrubench.study.folder import shown

_SUITES = Path(__file__).parent / "suites"

BOUNDS_ABOVE = ("all_top", "all_lower", "first_touch", "random_promotion")
BOUNDS_BELOW = ("oracle_static", "oracle_window")


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


Strings = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Rates = Annotated[tuple[Annotated[float, Field(ge=0, le=10_000)], ...], BeforeValidator(_listed)]


class Question(BaseModel):
    """Everything a comparison needs to know; the names are those of the command line.

    Attributes:
        policy, workload: `NAME[:k=v,...]`; the bounds are added to the policies.
        machine, ratio: names, and DRAM:CXL shares of the footprint; several of either make rows of their own.
        rates, placement: values set on every workload in turn; empty leaves the workload's own.
        seeds, first_seed: paired seeds, so many from that one on (a sweep's winner is judged on seeds after its own).
        duration: seconds of work on an unloaded all-DRAM machine.
        scale: `auto` or 1 over a power of two.
        kernel, hz, sysctl, cost: changes to the machine.
        baseline: the policy that slowdowns are against.
        daemon_cpus: kernel threads on `spare` cores or `shared` with the application.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    policy: Strings = Field(min_length=1)
    workload: Strings = Field(min_length=1)
    machine: Strings = ("cxl-asic",)
    ratio: Strings = ()
    rates: Rates = ()
    placement: Strings = ()
    seeds: int = Field(3, ge=1, le=1000)
    first_seed: int = Field(1, ge=1, le=1_000_000)
    duration: float = Field(120.0, gt=0, le=1e6)
    scale: str = "auto"
    kernel: str | None = None
    hz: int | None = None
    sysctl: dict[str, int | str] = {}
    cost: dict[str, str] = {}
    baseline: str = "all_top"
    daemon_cpus: Literal["spare", "shared"] = "spare"

    @property
    def all_seeds(self) -> range:
        """The seeds themselves."""
        return range(self.first_seed, self.first_seed + self.seeds)


def suites() -> list[str]:
    """Names of the suites that come along."""
    return sorted(path.stem for path in _SUITES.glob("*.toml"))


def question(suite: str = "default", study: str | Path | None = None, **given: Any) -> Question:
    """Put together what to compare: the suite, then what the study file says, then what is given.

    Args:
        suite: `quick`, `default` or `full`.
        study: a TOML file with the names of `Question`; it may name another `suite` to start from.
        given: values that are not None replace both. Policies given here or in the file are framed by the bounds.

    Raises:
        UnknownNameError: no such suite or name in the file.
        ParameterError: impossible values, all in one line.
        UsageError: the file cannot be read.
    """
    told = read_study(Path(study)) if study is not None else {}
    told |= {name: value for name, value in given.items() if value is not None and value != []}
    base = _read(_suite_file(str(told.pop("suite", suite))))
    chosen = {**base, **told}
    asked = _checked(chosen)
    named = asked.policy if asked.baseline in asked.policy else (asked.baseline, *asked.policy)
    return asked.model_copy(update={"policy": framed(named) if "policy" in told else named})


def framed(policies: Sequence[str]) -> tuple[str, ...]:
    """The policies between the bounds, each once."""
    return tuple(dict.fromkeys([*BOUNDS_ABOVE, *policies, *BOUNDS_BELOW]))


def read_study(path: Path) -> dict[str, Any]:
    """The tables of a study file, with `-` and `_` meaning the same in names.

    Raises:
        UsageError: it cannot be read or is not TOML.
        UnknownNameError: a name that means nothing.
    """
    told = {name.replace("-", "_"): value for name, value in _read(path).items() if name not in _SWEEP}
    told |= {new: told.pop(old) for old, new in _ALIASES.items() if old in told}
    known = [*Question.model_fields, "suite"]
    for name in told:
        if name not in known:
            raise UnknownNameError(f"setting in {shown(path)}", name, known)
    return told


_SWEEP = ("sweep",)
"""A table that a sweep writes about itself (`sweep.winner`): no part of the question."""

_ALIASES = {
    "policies": "policy",
    "workloads": "workload",
    "ratios": "ratio",
    "rate": "rates",
    "placements": "placement",
    "sysctls": "sysctl",
    "costs": "cost",
    "machines": "machine",
}


def _suite_file(name: str) -> Path:
    if name not in suites():
        raise UnknownNameError("suite", name, suites())
    return _SUITES / f"{name}.toml"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"study file {shown(path)}: {str(error.strerror).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"study file {shown(path)}: not TOML: {error}") from None


def _checked(chosen: dict[str, Any]) -> Question:
    try:
        return Question(**chosen)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, f['loc'][:1]))}={f['input']!r}: {f['msg'].lower()}" for f in error.errors()]
        raise ParameterError("; ".join(dict.fromkeys(faults))) from None
