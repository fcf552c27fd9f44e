"""Kernel modules that the firewall's virtual machine needs: fetched before the tests lose the network (tests/run.py)."""

from __future__ import annotations

MODULES = (
    "bridge", "veth", "nft_meta_bridge", "nf_conntrack", "nf_conntrack_bridge", "nft_ct", "nft_limit", "nft_log",
    "nf_log_syslog", "nft_reject_bridge", "nft_reject",
)  # fmt: skip
