"""Machines from files: names, TOML files of one's own, and the one line that a fault in them gives."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.errors import KlrubenchError, ParameterError, UnknownNameError, UsageError
from klrubench.machine import load_machine

TWO_NODES = """
[[node]]
name = "DRAM"
tier = 0
cpus = 8
read_ns = 100
read_gb_s = 200

[[node]]
name = "CXL"
tier = 1
read_ns = 250
read_gb_s = 30
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def said(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


def test_an_unknown_machine_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError) as error:
        load_machine("cxl-asci")
    assert "did you mean cxl-asic?" in said(error)


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    machine = load_machine(write(tmp_path, TWO_NODES))
    assert machine.name == "mine"
    assert machine.nodes[1].write_ns == machine.nodes[1].read_ns == (250.0, 250.0)
    assert machine.costs == load_machine().costs
    assert load_machine("./mine.toml", home=tmp_path) == machine


def test_a_file_may_replace_scales_costs_and_settings(tmp_path: Path) -> None:
    text = f"""
hz = 250
[sysctls]
"vm.watermark_scale_factor" = 100
{TWO_NODES}
[unit.stream]
ns_per_instruction = 1
low = 0.5
high = 2
source = "measured"
[cost.pghot_record]
ns = 50
source = "measured"
"""
    machine = load_machine(write(tmp_path, text))
    walk, record = machine.costs["walk_pte"], machine.costs["pghot_record"]
    assert (walk.ns, walk.low_ns, walk.high_ns) == (39, 19.5, 78)
    assert (record.ns, record.low_ns, record.high_ns, record.instructions) == (50, 50, 50, None)
    assert record.meaning and record.source == "measured"
    assert machine.sysctls["vm.watermark_scale_factor"] == 100
    assert load_machine(write(tmp_path, text), hz=1000).hz == 1000


def test_four_nodes_two_sockets(tmp_path: Path) -> None:
    text = ""
    for name, tier, cpus, read_ns in (
        ("D0", 0, 8, [100, 180]),
        ("D1", 0, 8, [180, 100]),
        ("C0", 1, 0, [250, 330]),
        ("C1", 2, 0, 600),
    ):
        text += f'[[node]]\nname="{name}"\ntier={tier}\ncpus={cpus}\nread_ns={read_ns}\nread_gb_s=50\n'
    with pytest.raises(ParameterError, match="ratio is missing"):
        load_machine(write(tmp_path, text))
    machine = load_machine(write(tmp_path, "ratio = [1, 2, 4]\n" + text))
    assert machine.top_nodes == machine.cpu_nodes == (0, 1)
    assert machine.lower_nodes == (2, 3)
    assert [node.read_ns[:2] for node in machine.nodes] == [(100, 180), (180, 100), (250, 330), (600, 600)]
    assert all(len(node.read_ns) == len(node.write_ns) == 4 for node in machine.nodes)
    assert machine.node_shares() == pytest.approx((1 / 14, 1 / 14, 2 / 7, 4 / 7))
    assert "D1 100 ns" in machine.header()


def test_one_tier_is_a_machine_too(tmp_path: Path) -> None:
    machine = load_machine(write(tmp_path, TWO_NODES[: TWO_NODES.index("[[node]]", 5)]))
    assert machine.tiers == 1 and machine.lower_nodes == () and machine.node_shares() == (1.0,)


FAULTS = {
    "read_ns = 250": [
        ("", "node[1].read_ns is missing"),
        ("read_ns = 'slow'", "node[1].read_ns = 'slow': give a number"),
        ("read_ns = -1", "node[1].read_ns[0] = -1"),
        ("read_ns = nan", "node[1].read_ns[0]"),
        ("read_ns = inf", "node[1].read_ns[0]"),
        ("read_ns = true", "node[1].read_ns = True"),
        ("read_ns = []", "node[1].read_ns"),
        ("read_ns = [1, 2, 3]", "node[1].read_ns: 3 latencies"),
        (f"read_ns = 1{'0' * 400}", "node[1].read_ns[0]"),
        (f"read_ns = 1{'0' * 5000}", "not TOML"),
        ("read_nss = 250\nread_ns = 1", "node[1].read_nss: no key 'read_nss'; did you mean read_ns?"),
        ("read_ns = 250\nload_alpha = -1", "node[1].load_alpha = -1"),
        ("read_ns = 250\ncapacity_gib = 0", "node[1].capacity_gib = 0"),
        ("read_ns = 250 250", "not TOML: "),
    ],
    "tier = 1": [
        ("tier = 2", "node.tier: tiers are [0, 2]"),
        ("tier = 1.0", "node[1].tier = 1.0"),
        ("tier = -1", "node[1].tier = -1"),
    ],
    "cpus = 8": [("cpus = 0", "node.cpus: no node has CPUs"), ("cpus = '8'", "node[0].cpus = '8'")],
    'name = "CXL"': [
        ('name = "DRAM"', "node.name: two nodes share a name"),
        ('name = "CXL\\n"', "node[1].name = 'CXL\\n'"),
        ("name = 7", "node[1].name = 7"),
    ],
    "[[node]]": [
        ("hz = 500\n[[node]]", "hz 500"),
        ("kernel = '5.4'\n[[node]]", "kernel '5.4'"),
        ("kernel = 6.12\n[[node]]", "kernel = 6.12"),
        ("ratio = [1]\n[[node]]", "ratio '1' has 1 part, machine mine has 2 tiers"),
        ("ratio = [1, 0]\n[[node]]", "ratio[1] = 0"),
        ("sysctls.numa_balancing = 9\n[[node]]", "numa_balancing=9"),
        ("sysctls.numa_balancin = 0\n[[node]]", "did you mean numa_balancing?"),
        ("cost.walk_ptee = {ns = 1, source = 'x'}\n[[node]]", "no cost 'walk_ptee'; did you mean walk_pte?"),
        ("cost.walk_pte = {source = 'x'}\n[[node]]", "cost.walk_pte: give either instructions and unit, or ns"),
        ("cost.walk_pte = {ns = 1, low_ns = 2, source = 'x'}\n[[node]]", "cost.walk_pte: 1 ns is outside its range"),
        ("unit.warp = {ns_per_instruction = 1, source = 'x'}\n[[node]]", "unit.warp"),
        ("unit.miss = {ns_per_instruction = 1, low = 2, source = 'x'}\n[[node]]", "unit.miss: 1 is outside its range"),
        ("description = 'é'\n[[node]]", "description = 'é': use one line"),
        ("flavour = 1\n[[node]]", "flavour: no key 'flavour'"),
    ],
}


@pytest.mark.parametrize(
    ("old", "new", "expected"), [(old, new, expected) for old, cases in FAULTS.items() for new, expected in cases]
)
def test_a_fault_in_a_file_names_file_and_key(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = write(tmp_path, TWO_NODES.replace(old, new, 1))
    with pytest.raises(ParameterError) as error:
        load_machine(path)
    assert said(error).startswith(f"{path}: ") and expected in said(error)


@pytest.mark.parametrize(
    "name", ["./nothing.toml", "nothing.toml", "/", "no/such/file.toml", "a b.toml", "\0.toml", "./", "~nobody/x.toml"]
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as error:
        load_machine(name, home=tmp_path)
    assert "machine file" in said(error)


def test_five_nodes_are_too_many(tmp_path: Path) -> None:
    node = '[[node]]\nname="N{}"\ntier=0\ncpus=1\nread_ns=1\nread_gb_s=1\n'
    with pytest.raises(ParameterError, match="node: "):
        load_machine(write(tmp_path, "".join(node.format(i) for i in range(5))))


@settings(deadline=None, max_examples=150)
@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
)
def test_any_bytes_give_a_machine_or_one_clear_line(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.toml"
    path.write_bytes(content)
    with pytest.raises(ParameterError) as error:
        load_machine(str(path))
    assert said(error).startswith(str(path))


PLAIN = st.recursive(
    st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["node", "unit", "cost", "hz", "kernel", "ratio", "sysctls", "sources", "cache_hit_ns", "source"]
)


@settings(deadline=None, max_examples=200)
@given(
    changes=st.dictionaries(KEYS, PLAIN, min_size=1, max_size=3),
    node=st.dictionaries(st.sampled_from(["tier", "cpus", "read_ns", "sources"]), PLAIN),
)
def test_any_values_give_a_machine_or_one_clear_line(changes: dict[str, object], node: dict[str, object]) -> None:
    from klrubench.machine.loading import _machine
    from klrubench.machine.schema import MachineFile, parse

    data = tomllib.loads(TWO_NODES)
    data["node"][1].update(node)
    try:
        entry = parse(MachineFile, {**data, **changes}, "f")
        _machine("mine", entry, entry.kernel, entry.hz)
    except KlrubenchError as error:
        assert "\n" not in str(error)
