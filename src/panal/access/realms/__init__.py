"""Where a user's password is checked: a driver a realm type."""

from panal.access.realms.base import RealmDriver
from panal.access.realms.pam import PamRealm
from panal.access.realms.pve import PveRealm

__all__ = ["PamRealm", "PveRealm", "RealmDriver"]
