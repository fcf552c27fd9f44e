"""Bridges, bonds and other interfaces of this node.

Public face: `Network`.
"""

from panal.network.interfaces import Network

__all__ = ["Network"]
