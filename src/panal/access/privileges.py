"""The 47 privileges and 17 built-in roles: names of the Proxmox VE API, fixed, never in the store.

Facts: reference tables of release 9.1. Used by the policy, role verbs and the documentation.
"""

from __future__ import annotations

from typing import Final

_NAMES: Final = """
    Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit Group.Allocate
    Mapping.Audit Mapping.Modify Mapping.Use Permissions.Modify Pool.Allocate Pool.Audit Realm.Allocate
    Realm.AllocateUser SDN.Allocate SDN.Audit SDN.Use Sys.AccessNetwork Sys.Audit Sys.Console Sys.Incoming
    Sys.Modify Sys.PowerMgmt Sys.Syslog User.Modify VM.Allocate VM.Audit VM.Backup VM.Clone VM.Config.CDROM
    VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType VM.Config.Memory VM.Config.Network
    VM.Config.Options VM.Console VM.GuestAgent.Audit VM.GuestAgent.FileRead VM.GuestAgent.FileSystemMgmt
    VM.GuestAgent.FileWrite VM.GuestAgent.Unrestricted VM.Migrate VM.PowerMgmt VM.Replicate VM.Snapshot
    VM.Snapshot.Rollback
"""
ALL: Final = frozenset(_NAMES.split())

_TABLE: Final = """
NoAccess:
PVEAdmin:
    Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit Group.Allocate
    Mapping.Audit Mapping.Use Pool.Allocate Pool.Audit Realm.AllocateUser SDN.Allocate SDN.Audit SDN.Use
    Sys.Audit Sys.Console Sys.Syslog User.Modify VM.Allocate VM.Audit VM.Backup VM.Clone VM.Config.CDROM
    VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType VM.Config.Memory VM.Config.Network
    VM.Config.Options VM.Console VM.GuestAgent.Audit VM.GuestAgent.FileRead VM.GuestAgent.FileSystemMgmt
    VM.GuestAgent.FileWrite VM.GuestAgent.Unrestricted VM.Migrate VM.PowerMgmt VM.Replicate VM.Snapshot
    VM.Snapshot.Rollback
PVEAuditor:
    Datastore.Audit Mapping.Audit Pool.Audit SDN.Audit Sys.Audit VM.Audit VM.GuestAgent.Audit
PVEDatastoreAdmin:
    Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit
PVEDatastoreUser:
    Datastore.AllocateSpace Datastore.Audit
PVEMappingAdmin:
    Mapping.Audit Mapping.Modify Mapping.Use
PVEMappingUser:
    Mapping.Audit Mapping.Use
PVEPoolAdmin:
    Pool.Allocate Pool.Audit
PVEPoolUser:
    Pool.Audit
PVESDNAdmin:
    SDN.Allocate SDN.Audit SDN.Use
PVESDNUser:
    SDN.Audit SDN.Use
PVESysAdmin:
    Sys.Audit Sys.Console Sys.Syslog
PVETemplateUser:
    VM.Audit VM.Clone
PVEUserAdmin:
    Group.Allocate Realm.AllocateUser User.Modify
PVEVMAdmin:
    VM.Allocate VM.Audit VM.Backup VM.Clone VM.Config.CDROM VM.Config.CPU VM.Config.Cloudinit
    VM.Config.Disk VM.Config.HWType VM.Config.Memory VM.Config.Network VM.Config.Options VM.Console
    VM.GuestAgent.Audit VM.GuestAgent.FileRead VM.GuestAgent.FileSystemMgmt VM.GuestAgent.FileWrite
    VM.GuestAgent.Unrestricted VM.Migrate VM.PowerMgmt VM.Replicate VM.Snapshot VM.Snapshot.Rollback
PVEVMUser:
    VM.Audit VM.Backup VM.Config.CDROM VM.Config.Cloudinit VM.Console VM.GuestAgent.Audit
    VM.GuestAgent.FileRead VM.GuestAgent.FileSystemMgmt VM.GuestAgent.FileWrite VM.PowerMgmt
"""


def _parse(table: str) -> dict[str, frozenset[str]]:
    roles: dict[str, list[str]] = {}
    name = ""
    for line in table.split("\n"):
        if line.endswith(":"):
            name = line[:-1]
            roles[name] = []
        elif line:
            roles[name] += line.split()
    return {role: frozenset(privs) for role, privs in roles.items()}


NO_ACCESS: Final = "NoAccess"
ROLES: Final[dict[str, frozenset[str]]] = {"Administrator": ALL, **_parse(_TABLE)}

# Who holds one of these can get every other privilege there: by granting it, by changing a role, by a root shell. Nobody
# takes over the credentials of such an account without the same privilege (guard.py).
APEX: Final = frozenset(
    (
        "Permissions.Modify",
        "Realm.Allocate",
        "Realm.AllocateUser",
        "User.Modify",
        "Sys.Modify",
        "Sys.Console",
        "Sys.PowerMgmt",
    )
)
