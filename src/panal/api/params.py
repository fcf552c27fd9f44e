"""Parameters that many methods share, described once."""

from __future__ import annotations

from panal.api.table import Param

NODE = Param("node", "string", "Name of the node.", required=True, format="pve-node")
VMID = Param(
    "vmid",
    "integer",
    "Number of the guest.",
    required=True,
    format="pve-vmid",
    minimum=100,
    maximum=999_999_999,
)
STORAGE = Param("storage", "string", "Name of the storage.", required=True, format="pve-storage-id")
UPID = Param("upid", "string", "Name of the task.", required=True)
DIGEST = Param(
    "digest",
    "string",
    "Refuse the change if the configuration is no longer the one with this digest.",
    max_length=64,
)
SKIPLOCK = Param("skiplock", "boolean", "Ignore a lock on the guest; root only.")
USERID = Param("userid", "string", "User: name@realm.", required=True, format="pve-userid", max_length=64)
SNAPNAME = Param("snapname", "string", "Name of the snapshot.", required=True, format="pve-snapshot", max_length=40)
COMMENT = Param("comment", "string", "A note for people.", format="comment", max_length=4096)
