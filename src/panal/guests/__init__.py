"""Virtual machines: configuration, verbs, right to run, hypervisor drivers.

Public face: `Guests` (context.py) and one module a verb. Verbs take `Guests` first and return a UPID when they are tasks.
"""

from panal.guests.context import Guests
from panal.guests.drivers.base import Live
from panal.guests.model import Guest, RunRecord, Snapshot

__all__ = ["Guest", "Guests", "Live", "RunRecord", "Snapshot"]
