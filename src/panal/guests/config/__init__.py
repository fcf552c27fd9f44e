"""Configuration of virtual machines: keys, typed readers, changes, wire form. Pure: no I/O, no store, no clock."""

from panal.guests.config.drives import Drive, format_drive, format_size, parse_drive, parse_size, read_drives
from panal.guests.config.keys import INTERNAL, KEYS, find
from panal.guests.config.nics import Nic, format_nic, parse_nic, read_nics

__all__ = [
    "INTERNAL",
    "KEYS",
    "Drive",
    "Nic",
    "find",
    "format_drive",
    "format_nic",
    "format_size",
    "parse_drive",
    "parse_nic",
    "parse_size",
    "read_drives",
    "read_nics",
]
