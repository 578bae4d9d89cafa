"""The machine model: what the rest of the simulator asks about the hardware and the kernel's settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from klrubench.errors import ParameterError
from klrubench.machine.cost import Cost, changed_costs
from klrubench.machine.kernel import check_hz, check_kernel, version_tuple
from klrubench.machine.sysctls import changed_sysctls, default_sysctls

MAX_NODES = 4
MAX_UTILISATION = 0.99


@dataclass(frozen=True)
class Node:
    """One NUMA node.

    Attributes:
        name: what tables call it (`DRAM`).
        tier: 0 is the top tier; promotion goes towards it.
        cpus: CPUs of the node (0: memory only).
        capacity_gib: GiB of memory; None: a share of the workload's footprint, by the machine's `ratio`.
        read_ns, write_ns: idle latency of a last-level-cache miss, by home node (the node whose CPU asks); one entry
            for each node of the machine. Entries of homes without CPUs repeat the first home that has some.
        read_gb_s, write_gb_s: bandwidth, 1e9 bytes a second.
        load_alpha, load_beta: latency under load is idle latency x (1 + alpha u^beta / (1 - u)), u the share of the
            bandwidth in use, at most 0.99.
        sources: where each of these numbers comes from, by name.
    """

    name: str
    tier: int
    cpus: int
    capacity_gib: float | None
    read_ns: tuple[float, ...]
    write_ns: tuple[float, ...]
    read_gb_s: float
    write_gb_s: float
    load_alpha: float = 0.2
    load_beta: float = 4.0
    sources: dict[str, str] = field(default_factory=dict)

    def load_factor(self, utilisation: float) -> float:
        """Latency at that share of the bandwidth over idle latency (1.0 at 0)."""
        u = min(max(utilisation, 0.0), MAX_UTILISATION)
        return 1.0 + self.load_alpha * math.pow(u, self.load_beta) / (1.0 - u)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Node:
        """The inverse of `dataclasses.asdict`, also after a passage through JSON."""
        return cls(**{**data, "read_ns": tuple(data["read_ns"]), "write_ns": tuple(data["write_ns"])})


@dataclass(frozen=True)
class Machine:
    """A machine with all its numbers resolved. Plain data: it can be pickled and stored as JSON.

    Attributes:
        name, description, source: what it is called, what it is, and where its numbers were measured.
        nodes: 1 to 4 NUMA nodes; tiers are numbered from 0 without gaps.
        costs: cost of each kernel operation, by name.
        cache_hit_ns: latency of a touch that the CPU's caches serve.
        hz: timer ticks a second.
        kernel: kernel version whose rules apply.
        sysctls: every setting by its full name.
        ratio: share of the footprint of each tier that has nodes without a capacity (1, 2: a third on the top tier);
            empty when every node has its own capacity.
        sources: where the machine's own numbers come from, by name.

    Raises:
        ParameterError: the nodes do not make a machine.
    """

    name: str
    description: str
    source: str
    nodes: tuple[Node, ...]
    costs: dict[str, Cost]
    cache_hit_ns: float
    hz: int = 1000
    kernel: str = "6.18"
    sysctls: dict[str, int] = field(default_factory=default_sysctls)
    ratio: tuple[float, ...] = (1.0, 2.0)
    sources: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_hz(self.hz)
        check_kernel(self.kernel)
        _check_nodes(self.nodes)
        _check_ratio(self.ratio, self)

    @property
    def cpus(self) -> int:
        """CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def tiers(self) -> int:
        """Number of tiers, 1 or more."""
        return max(node.tier for node in self.nodes) + 1

    @property
    def top_nodes(self) -> tuple[int, ...]:
        """Indices of the nodes of the top tier (`node_is_toptier`)."""
        return tuple(i for i, node in enumerate(self.nodes) if node.tier == 0)

    @property
    def lower_nodes(self) -> tuple[int, ...]:
        """Indices of all nodes below the top tier."""
        return tuple(i for i, node in enumerate(self.nodes) if node.tier > 0)

    @property
    def cpu_nodes(self) -> tuple[int, ...]:
        """Indices of the nodes that have CPUs."""
        return tuple(i for i, node in enumerate(self.nodes) if node.cpus)

    def kernel_at_least(self, version: str) -> bool:
        """Whether the rules of that kernel version, or a later one, apply (`6.14`)."""
        return version_tuple(self.kernel) >= version_tuple(version)

    def node_shares(self) -> tuple[float | None, ...]:
        """Each node's share of the footprint by `ratio`, nodes of a tier alike; None where it has its own capacity."""
        whole = sum(self.ratio)
        unsized = [node.tier for node in self.nodes if node.capacity_gib is None]
        return tuple(
            None if node.capacity_gib is not None else self.ratio[node.tier] / whole / unsized.count(node.tier)
            for node in self.nodes
        )

    def with_sysctls(self, changes: Mapping[str, int | str]) -> Machine:
        """This machine with other settings; short names do. Raises ParameterError, UnknownNameError."""
        return replace(self, sysctls=changed_sysctls(self.sysctls, changes))

    def with_costs(self, changes: Mapping[str, str]) -> Machine:
        """This machine with costs scaled (`2x`) or set (`300ns`). Raises ParameterError, UnknownNameError."""
        return replace(self, costs=changed_costs(self.costs, changes))

    def with_ratio(self, ratio: str | Sequence[float]) -> Machine:
        """This machine with another `ratio` of the tiers (`1:4`). Raises ParameterError."""
        if not any(node.capacity_gib is None for node in self.nodes):
            raise ParameterError(f"ratio {ratio!r}: machine {self.name} gives every node its own capacity")
        return replace(self, ratio=parse_ratio(ratio))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold unchanged."""
        data = asdict(self)
        for node in data["nodes"]:
            node.update(read_ns=[*node["read_ns"]], write_ns=[*node["write_ns"]])
        data["nodes"] = [*data["nodes"]]
        data["ratio"] = [*self.ratio]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Machine:
        """The inverse of `to_dict`.

        Raises:
            ParameterError: not the dictionary of a machine.
        """
        try:
            nodes = tuple(Node.from_dict(node) for node in data["nodes"])
            costs = {name: Cost(**cost) for name, cost in data["costs"].items()}
            return cls(**{**data, "nodes": nodes, "costs": costs, "ratio": tuple(data["ratio"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise ParameterError(f"not a stored machine: {type(error).__name__} {error}") from None

    def identity(self) -> dict[str, Any]:
        """What can change a result: `to_dict` without descriptions, sources and ranges."""
        data = self.to_dict()
        data["costs"] = {name: cost.ns for name, cost in self.costs.items()}
        for part in (data, *data["nodes"]):
            for prose in ("description", "source", "sources"):
                part.pop(prose, None)
        return data

    def header(self) -> str:
        """One line for the head of a table."""
        from klrubench.machine.describe import header

        return header(self)

    def sizing(self) -> str:
        """How the nodes are sized: `DRAM 1/3 of footprint`."""
        from klrubench.machine.describe import sizing

        return sizing(self)

    def cost_changes(self) -> str:
        """Costs that were changed, for a table's head: `pghot_record 323 ns (x 2)`; empty if none was."""
        from klrubench.machine.describe import cost_changes

        return cost_changes(self)

    def describe_lines(self) -> list[str]:
        """The whole machine in the manner of `numactl -H`, with costs, ranges and sources; at most 100 columns."""
        from klrubench.machine.describe import describe_lines

        return describe_lines(self)


def parse_ratio(ratio: str | Sequence[float]) -> tuple[float, ...]:
    """`1:2` or (1, 2) as numbers.

    Raises:
        ParameterError: not numbers, or one that is not above 0.
    """
    parts = ratio.split(":") if isinstance(ratio, str) else ratio
    try:
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(1e-6 <= number <= 1e6 for number in numbers):
        raise ParameterError(f"ratio {ratio!r}: write parts above 0 from the top tier down, such as 1:2")
    return numbers


def _check_nodes(nodes: tuple[Node, ...]) -> None:
    if not 1 <= len(nodes) <= MAX_NODES:
        raise ParameterError(f"node: {len(nodes)} nodes; a machine has 1 to {MAX_NODES}")
    names = [node.name for node in nodes]
    if len(set(names)) < len(names):
        raise ParameterError(f"node.name: two nodes share a name in {', '.join(names)}")
    tiers = {node.tier for node in nodes}
    if tiers != set(range(len(tiers))):
        raise ParameterError(f"node.tier: tiers are {sorted(tiers)}; number them from 0 (top) without gaps")
    if not any(node.cpus for node in nodes):
        raise ParameterError("node.cpus: no node has CPUs")
    for i, node in enumerate(nodes):
        for key, latencies in (("read_ns", node.read_ns), ("write_ns", node.write_ns)):
            if len(latencies) != len(nodes):
                raise ParameterError(f"node[{i}].{key}: {len(latencies)} latencies for {len(nodes)} home nodes")


def _check_ratio(ratio: tuple[float, ...], machine: Machine) -> None:
    sized_by_ratio = any(node.capacity_gib is None for node in machine.nodes)
    if sized_by_ratio and len(ratio) != machine.tiers:
        parts = ":".join(f"{part:g}" for part in ratio)
        raise ParameterError(
            f"ratio '{parts}' has {len(ratio)} part{'s' * (len(ratio) != 1)}, machine {machine.name} "
            f"has {machine.tiers} tier{'s' * (machine.tiers != 1)}"
        )
