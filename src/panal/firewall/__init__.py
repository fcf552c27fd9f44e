"""Firewalls of guests: what they are (`model`, `spec`, `rules`, `edit`), what nftables makes of them (`compile`, `backend`)."""

from panal.firewall.backend import Abilities, Backend, FakeBackend, NftBackend
from panal.firewall.compile import Card, Protected, compile_table, remove_table
from panal.firewall.model import GuestFirewall, firewall_key

__all__ = [
    "Abilities", "Backend", "Card", "FakeBackend", "GuestFirewall", "NftBackend", "Protected", "compile_table",
    "firewall_key", "remove_table",
]  # fmt: skip
