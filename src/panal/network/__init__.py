"""Bridges, taps, interfaces of this node."""
