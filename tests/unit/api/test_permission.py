"""Permission forms that no method of the table has today: what the generated matrix cannot see."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from panal.api.permission import Permission, PermModify, RealmPriv, Rights, RootOnly, UserGroup, perm
from panal.core.errors import Forbidden


class Somebody:
    """Every privilege everywhere; root@pam or not."""

    def __init__(self, userid: str) -> None:
        self.userid = self.owner = userid
        self.is_root = userid == "root@pam"

    def privileges(self, path: str) -> Mapping[str, bool]:
        return {"Sys.Modify": True, "Permissions.Modify": True}

    def groups_of(self, userid: str) -> frozenset[str]:
        return frozenset()


def test_root_only_means_root() -> None:
    """Planted fault: `if False:` in RootOnly.check."""
    RootOnly().check(Somebody("root@pam"), {})
    for other in ("admin@pve", "root@pve", "root@pam!token"):
        with pytest.raises(Forbidden):
            RootOnly().check(Somebody(other), {})


class Holder(Somebody):
    """The named privileges on the named paths, nothing else."""

    def __init__(self, **held: str) -> None:
        super().__init__("eve@pve")
        self.held = {path.replace("_", "/"): {priv: True} for path, priv in held.items()}

    def privileges(self, path: str) -> Mapping[str, bool]:
        return self.held.get(path.lstrip("/"), {})


def allowed(form: Permission, rights: Rights, **params: object) -> bool:
    try:
        form.check(rights, params)
    except Forbidden:
        return False
    return True


def test_each_form_by_itself() -> None:
    """Faults that the matrix forgives, since other forms or the handler say no as well (`tests/unit/mutants`)."""
    pool = perm("/pool/{pool}", "Pool.Allocate", when="pool")
    assert allowed(pool, Holder(pool_a="Pool.Allocate"), pool="a")
    assert not allowed(pool, Holder(pool_="Pool.Allocate"))
    realm = Holder(access_realm_pve="Realm.AllocateUser")
    assert allowed(RealmPriv(), realm, userid="x@pve")
    assert not allowed(RealmPriv(), realm, userid="x@pam")
    group, form = Holder(access_groups_g="User.Modify"), UserGroup(("User.Modify",), "create")
    assert allowed(form, group, groups="g")
    assert not allowed(form, group) and not allowed(form, group, groups="g,h")
    assert allowed(PermModify(), Holder(storage_x="Datastore.Allocate"), path="/storage/x")
    assert not allowed(PermModify(), Holder(storage="Datastore.Allocate"), path="/storage")
