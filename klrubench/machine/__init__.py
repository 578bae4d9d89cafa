"""Machines: nodes, tiers, latency, bandwidth, kernel settings and the cost of each kernel operation."""

from klrubench.machine.cost import Cost
from klrubench.machine.loading import list_machines, load_machine
from klrubench.machine.model import Machine, Node

__all__ = ["Cost", "Machine", "Node", "list_machines", "load_machine"]
