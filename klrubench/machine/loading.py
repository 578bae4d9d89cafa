"""Finding a machine by name or file, and resolving it into numbers."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import ParameterError, UnknownNameError, UsageError
from klrubench.machine.cost import Cost, resolve_costs
from klrubench.machine.kernel import check_hz, check_kernel
from klrubench.machine.model import Machine, Node, parse_ratio
from klrubench.machine.sysctls import changed_sysctls, default_sysctls

if TYPE_CHECKING:
    from klrubench.machine.schema import MachineFile, NodeEntry

DEFAULT_MACHINE = "cxl-asic"
MAX_FILE_BYTES = 1 << 20

_HERE = Path(__file__).parent
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


def list_machines() -> list[str]:
    """Names of the machines that come along, the default one first."""
    names = sorted(path.stem for path in (_HERE / "presets").glob("*.toml"))
    return sorted(names, key=lambda name: name != DEFAULT_MACHINE)


def load_machine(
    name: str = DEFAULT_MACHINE,
    *,
    ratio: str | Sequence[float] | None = None,
    kernel: str | None = None,
    hz: int | str | None = None,
    sysctls: Mapping[str, int | str] | None = None,
    costs: Mapping[str, str] | None = None,
    home: Path | str | None = None,
) -> Machine:
    """A machine with all its numbers resolved.

    Args:
        name: one that comes along (`cxl-asic`), or the path of a TOML file (has a `/` or ends in `.toml`).
        ratio: sizes of the tiers as shares of the footprint, top tier first (`1:2`).
        kernel: version whose rules and observed costs apply (`6.12`).
        hz: timer ticks a second.
        sysctls: settings to change; the last part of a name is enough.
        costs: costs to scale (`{"pghot_record": "2x"}`) or set (`"300ns"`).
        home: folder that a relative path starts from (default: where one stands).

    Raises:
        UnknownNameError: no such machine, setting or cost.
        ParameterError: a value that makes no sense; for a file, with its name and key.
        UsageError: a file that is not there or cannot be read.
    """
    path = _find(name, home)
    machine = _build(path, None if kernel is None else check_kernel(kernel), None if hz is None else check_hz(hz))
    machine = machine if ratio is None else machine.with_ratio(ratio)
    return machine.with_sysctls(sysctls or {}).with_costs(costs or {})


def _find(name: str, home: Path | str | None) -> Path:
    if "/" not in name and os.sep not in name and not name.endswith(".toml"):
        if name not in list_machines():
            raise UnknownNameError("machine", name, list_machines(), "a file of your own: ./NAME.toml")
        return _HERE / "presets" / f"{name}.toml"
    path = Path(home or ".") / Path(os.path.expanduser(name))
    if not _FILE_NAME.fullmatch(path.stem):
        raise ParameterError(f"machine file {name!r}: use letters, digits, '_', '.', '+' and '-' in the file's name")
    return path


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        UsageError: the file is not there, cannot be read, or is too large.
        ParameterError: it is not TOML; with the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"machine file {_shown(path)}: {str(reason).lower()}") from None
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(f"machine file {_shown(path)}: larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ParameterError(f"{_shown(path)}: not TOML: {reason.splitlines()[0]}") from None


def _build(path: Path, kernel: str | None, hz: int | None) -> Machine:
    from klrubench.machine.schema import MachineFile, parse

    entry = parse(MachineFile, read_toml(path), _shown(path))
    try:
        return _machine(path.stem, entry, kernel or entry.kernel, hz or entry.hz)
    except UsageError as error:
        raise ParameterError(f"{_shown(path)}: {error}") from None


def _machine(name: str, entry: MachineFile, kernel: str, hz: int) -> Machine:
    nodes = tuple(_node(i, entry) for i in range(len(entry.node)))
    return Machine(
        name=name,
        description=entry.description,
        source=entry.source,
        nodes=nodes,
        costs=_costs(entry, kernel),
        cache_hit_ns=float(entry.cache_hit_ns),
        hz=hz,
        kernel=kernel,
        sysctls=changed_sysctls(default_sysctls(), entry.sysctls),
        ratio=_ratio(entry),
        sources=dict(entry.sources),
    )


def _costs(entry: MachineFile, kernel: str) -> dict[str, Cost]:
    from klrubench.machine.schema import CostTable, parse

    default = parse(CostTable, read_toml(_HERE / "costs.toml"), "costs.toml")
    return resolve_costs(default, entry, kernel)


def _ratio(entry: MachineFile) -> tuple[float, ...]:
    tiers = len({node.tier for node in entry.node})
    if all(node.capacity_gib is not None for node in entry.node):
        if entry.ratio is not None:
            raise ParameterError("ratio: has no effect, every node has its own capacity_gib")
        return ()
    if entry.ratio is not None:
        return parse_ratio(entry.ratio)
    if tiers > 2:
        raise ParameterError(f"ratio is missing: give the shares of the {tiers} tiers, such as [1, 2, 4]")
    return (1.0,) if tiers == 1 else (1.0, 2.0)


def _node(i: int, entry: MachineFile) -> Node:
    own = entry.node[i]
    read_ns = _by_home(own.read_ns, f"node[{i}].read_ns", entry.node)
    return Node(
        name=own.name,
        tier=own.tier,
        cpus=own.cpus,
        capacity_gib=None if own.capacity_gib is None else float(own.capacity_gib),
        read_ns=read_ns,
        write_ns=read_ns if own.write_ns is None else _by_home(own.write_ns, f"node[{i}].write_ns", entry.node),
        read_gb_s=float(own.read_gb_s),
        write_gb_s=float(own.read_gb_s if own.write_gb_s is None else own.write_gb_s),
        load_alpha=float(own.load_alpha),
        load_beta=float(own.load_beta),
        sources=dict(own.sources),
    )


def _by_home(given: list[float], key: str, nodes: list[NodeEntry]) -> tuple[float, ...]:
    homes = [i for i, node in enumerate(nodes) if node.cpus]
    if len(given) == 1:
        return tuple(float(given[0]) for _ in nodes)
    if len(given) == len(nodes):
        return tuple(float(value) for value in given)
    if len(given) != len(homes):
        raise ParameterError(
            f"{key}: {len(given)} latencies; give 1, or one for each of the {len(homes)} nodes with CPUs"
        )
    by_home = dict(zip(homes, given, strict=True))
    return tuple(float(by_home.get(i, given[0])) for i in range(len(nodes)))


def _shown(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else repr(text)
