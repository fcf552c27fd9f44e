"""This machine: status, time, names, services, log, power, series.

Public face: `NodeInfo` (context.py), the `Series` with their `Sampler`, and one module a subject.
"""

from panal.node.context import NodeInfo
from panal.node.sampler import Sampler
from panal.node.series import Series

__all__ = ["NodeInfo", "Sampler", "Series"]
