"""Bridges, bonds and other interfaces of this node, and the ports guests have on its bridges.

Public face: `Network` (what there is), `Ports` (what guests are put on).
"""

from panal.network.interfaces import Network
from panal.network.ports import Port, Ports, PortWish

__all__ = ["Network", "Port", "PortWish", "Ports"]
