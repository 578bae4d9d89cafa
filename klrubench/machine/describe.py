"""How a machine reads on a terminal: one line for a table's head, or the whole in the manner of `numactl -H`."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from textwrap import wrap

from klrubench.machine.cost import Cost
from klrubench.machine.model import Machine, Node
from klrubench.machine.sysctls import SYSCTLS

WIDTH = 100
_LOADS = (0.5, 0.8, 0.9, 0.95, 0.99)


def header(machine: Machine) -> str:
    """`machine cxl-asic: DRAM 114 ns 218 GB/s; CXL 271 ns 26 GB/s (Soar, OSDI'25)`."""
    nodes = "; ".join(f"{node.name} {_latency(node, machine)} ns {_bandwidth(node)} GB/s" for node in machine.nodes)
    return f"machine {machine.name}: {nodes} ({machine.source})"


def sizing(machine: Machine) -> str:
    """`DRAM 1/3 of footprint, CXL 2/3 of footprint`, or sizes in GiB."""
    return ", ".join(f"{node.name} {_size(i, machine)}" for i, node in enumerate(machine.nodes))


def describe_lines(machine: Machine) -> list[str]:
    """Nodes, latencies, curve, settings, costs and where each number comes from."""
    return [
        *wrap(f"{machine.name}: {machine.description} ({machine.source})", WIDTH),
        _settings_line(machine),
        "",
        *_node_lines(machine),
        "",
        *_latency_lines(machine),
        "",
        *_load_lines(machine),
        "",
        *_sysctl_lines(machine),
        "",
        *_cost_lines(machine),
        "",
        *_source_lines(machine),
    ]


def format_ns(ns: float) -> str:
    """`5.0 ns`, `161 ns`, `5.95 us`: three figures at most."""
    if ns < 1000:
        return f"{ns:.1f} ns" if 0 < ns < 10 else f"{ns:.0f} ns"
    value, unit = (ns / 1e3, "us") if ns < 1e6 else (ns / 1e6, "ms") if ns < 1e9 else (ns / 1e9, "s")
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def cost_changes(machine: Machine) -> str:
    """`pghot_record 323 ns (x 2)` for each changed cost; empty if none is."""
    changed = [cost for cost in machine.costs.values() if cost.ns != cost.own_ns]
    return ", ".join(f"{cost.name} {format_ns(cost.ns)} (x {cost.factor:.3g})" for cost in changed)


def _settings_line(machine: Machine) -> str:
    cache_hit = f"cache hit {_plain(machine.cache_hit_ns)} ns"
    return f"kernel {machine.kernel}, HZ {machine.hz}, {_count(machine.cpus, 'CPU')}, {cache_hit}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _plain(value: float) -> str:
    return f"{value:.6g}"


def _latency(node: Node, machine: Machine) -> str:
    homes = machine.cpu_nodes
    read, write = (min(latencies[home] for home in homes) for latencies in (node.read_ns, node.write_ns))
    return _plain(read) if read == write else f"{_plain(read)}/{_plain(write)}"


def _bandwidth(node: Node) -> str:
    same = node.read_gb_s == node.write_gb_s
    return _plain(node.read_gb_s) if same else f"{_plain(node.read_gb_s)}/{_plain(node.write_gb_s)}"


def _size(i: int, machine: Machine) -> str:
    share, capacity_gib = machine.node_shares()[i], machine.nodes[i].capacity_gib
    if share is None:
        return f"{_plain(capacity_gib or 0.0)} GiB"
    fraction = Fraction(share).limit_denominator(1000)
    exact = abs(float(fraction) - share) < 1e-9
    return f"{fraction if exact else f'{share:.3g}'} of footprint"


def _node_lines(machine: Machine) -> Iterator[str]:
    yield f"available: {_count(len(machine.nodes), 'node')} (bandwidth in 1e9 bytes/s)"
    yield f"{'node':<5}{'name':<17}{'tier':<11}{'CPUs':>5}  {'size':<22}{'read GB/s':>10}{'write GB/s':>11}"
    for i, node in enumerate(machine.nodes):
        tier = f"{node.tier} ({'lower' if node.tier else 'top'})"
        bandwidth = f"{_plain(node.read_gb_s):>10}{_plain(node.write_gb_s):>11}"
        yield f"{i:<5}{node.name:<17}{tier:<11}{node.cpus:>5}  {_size(i, machine):<22}{bandwidth}"


def _latency_lines(machine: Machine) -> Iterator[str]:
    yield "idle latency of a cache miss, ns, read/write (rows: node of the CPU)"
    yield "node" + "".join(f"{i:>14}" for i in range(len(machine.nodes)))
    for home in machine.cpu_nodes:
        cells = (f"{_plain(node.read_ns[home])}/{_plain(node.write_ns[home])}" for node in machine.nodes)
        yield f"{home:>3}:" + "".join(f"{cell:>14}" for cell in cells)


def _load_lines(machine: Machine) -> Iterator[str]:
    yield "latency under load, x idle: 1 + alpha u^beta / (1 - u), u = share of bandwidth in use"
    yield f"{'u':<20}" + "".join(f"{load:>8.0%}" for load in _LOADS)
    for node in machine.nodes:
        factors = "".join(f"{node.load_factor(load):>8.2f}" for load in _LOADS)
        yield f"{node.name:<20}{factors}   alpha {_plain(node.load_alpha)}, beta {_plain(node.load_beta)}"


def _sysctl_lines(machine: Machine) -> Iterator[str]:
    yield f"{'setting':<46}{'value':>10}  meaning"
    for name, value in machine.sysctls.items():
        yield from _hanging(f"{name:<46}{value:>10}  ", SYSCTLS[name].help)


def _cost_lines(machine: Machine) -> Iterator[str]:
    yield f"{'cost of one':<19}{'time':>8}  {'range':<16}{'instr':>6} {'scale':<7}meaning"
    for cost in machine.costs.values():
        yield from _cost_entry(cost)


def _cost_entry(cost: Cost) -> Iterator[str]:
    instructions = "-" if cost.instructions is None else _plain(cost.instructions)
    row = f"{cost.name:<19}{format_ns(cost.ns):>8}  {_range(cost):<16}{instructions:>6} {cost.unit or '-':<7}"
    yield from _hanging(row, cost.meaning)
    if cost.ns != cost.own_ns:
        yield f"    changed: x {cost.factor:.3g}{_outside(cost)}"
    yield from wrap(f"from: {cost.source}", WIDTH, initial_indent="    ", subsequent_indent="      ")


def _hanging(row: str, text: str) -> list[str]:
    return wrap(row + text, WIDTH, subsequent_indent=" " * len(row), break_long_words=False)


def _range(cost: Cost) -> str:
    if cost.low_ns == cost.high_ns:
        return "-"
    low, high = format_ns(cost.low_ns), format_ns(cost.high_ns)
    return f"{low.split()[0] if low.split()[1] == high.split()[1] else low}-{high}"


def _outside(cost: Cost) -> str:
    return "" if cost.low_ns <= cost.ns <= cost.high_ns else ", outside its range"


def _source_lines(machine: Machine) -> Iterator[str]:
    yield "sources of the machine's numbers ([A], here and above: assumed, not measured)"
    groups = [("", machine.sources), *((f"{node.name} ", node.sources) for node in machine.nodes)]
    for owner, sources in groups:
        for name, source in sources.items():
            yield from wrap(f"{owner}{name}: {source}", WIDTH, initial_indent="    ", subsequent_indent="      ")
