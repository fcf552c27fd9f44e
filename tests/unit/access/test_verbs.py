"""Users, groups, roles, permissions, tokens, pools, realms: what they do, and who may not hand out what (rows 12, 13, 19)."""

from __future__ import annotations

import asyncio

import pytest

from panal.access import (
    Access,
    authenticate,
    bootstrap,
    change_acl,
    create_group,
    create_pool,
    create_role,
    create_token,
    create_user,
    delete_group,
    delete_pool,
    delete_role,
    delete_token,
    delete_user,
    forget_guest,
    forget_storage,
    join_pool,
    set_password,
    update_pool,
    update_role,
    update_token,
    update_user,
)  # fmt: skip
from panal.access.domains import create_realm, delete_realm, digest, sync_realm, update_realm
from panal.access.model import ACL, PASSWORD, POOL, REALM, TOKEN, TOKEN_SECRET, USER
from panal.access.pools import find
from panal.access.rights import Privileges
from panal.cluster.store import Mirror
from panal.core.errors import BadInput, Conflict, Failed, Forbidden, NotAuthenticated, NotFound, Unsupported
from tests.unit.access.conftest import FakeClock, put_acl, put_group, put_user
from tests.unit.access.test_authenticate import ticket_of

ROOT = "root@pam"


def have(access: Access, userid: str, path: str) -> Privileges:
    return access.rights(userid).privileges(path)


async def test_bootstrap_changes_nothing_the_second_time(access: Access, store: Mirror) -> None:
    before, revision = access.policy.users["root@pam"], store.revision
    await bootstrap(access)
    assert access.policy.users["root@pam"] == before
    assert store.revision == revision
    assert [i.key for i in store.list(REALM)] == ["access/realm/pam", "access/realm/pve"]


@pytest.mark.parametrize("name", ["a!b@pve", "a,b@pve", "-x@pve", "a|b@pve", "a\u200bb@pve", "a;b@pve", "a<b@pve"])
async def test_names_that_lists_and_tokens_would_mistake_are_refused(access: Access, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        await create_user(access, name, by=ROOT)
    assert caught.value.field == "userid"


async def test_create_user_says_what_is_wrong_and_leaves_nothing(access: Access, store: Mirror) -> None:
    before = store.revision
    with pytest.raises(BadInput, match="realm 'ldap' does not exist"):
        await create_user(access, "u@ldap", by=ROOT)
    with pytest.raises(BadInput, match="no such group 'g'"):
        await create_user(access, "u@pve", by=ROOT, groups=["g"])
    assert store.revision == before
    await create_user(access, "u@pve", by=ROOT, fields={"comment": "x", "uid": "forged", "epoch": 77})
    with pytest.raises(Conflict, match="already exists"):
        await create_user(access, "u@pve", by=ROOT)
    user = access.policy.users["u@pve"]
    assert (user.comment, user.epoch) == ("x", 0)
    assert user.uid != "forged"  # row 12: only FIELDS are taken over


async def test_two_who_create_the_same_user_at_once(access: Access) -> None:
    results = await asyncio.gather(
        *(create_user(access, "u@pve", by=ROOT, password=f"password-{n}") for n in range(5)), return_exceptions=True
    )
    assert [type(r) for r in results if r is not None] == [Conflict] * 4


async def test_a_recreated_user_inherits_nothing(access: Access, store: Mirror) -> None:
    """Row 19. Planted faults: each of the removals in `delete_user` left out is covered by the uid; both out is seen."""
    await create_group(access, "admins")
    await create_user(access, "u@pve", by=ROOT, password="first password", groups=["admins"])
    await change_acl(access, "/", ["Administrator"], by=ROOT, users=["u@pve"])
    _, secret = await create_token(access, "u@pve", "t", by=ROOT, fields={"privsep": False})
    await change_acl(access, "/", ["Administrator"], by=ROOT, tokens=["u@pve!t"])
    ticket, _ = await ticket_of(access, "u@pve")
    await authenticate(access, None, f"u@pve!t={secret}", None, False)
    await delete_user(access, "u@pve", by=ROOT)
    left = [i.key for room in (ACL, USER, TOKEN, PASSWORD, TOKEN_SECRET) for i in store.list(room)]
    assert left == ["access/user/root@pam"]
    await create_user(access, "u@pve", by=ROOT)
    assert dict(have(access, "u@pve", "/")) == {}
    assert access.policy.groups_of("u@pve") == frozenset()
    for text, api_token in ((ticket, None), (None, f"u@pve!t={secret}")):
        with pytest.raises(NotAuthenticated):
            await authenticate(access, text, api_token, None, False)
    _, again = await create_token(access, "u@pve", "t", by=ROOT, fields={"privsep": True})
    assert again != secret
    assert dict(have(access, "u@pve!t", "/")) == {}


async def test_a_user_with_more_than_a_transaction_of_traces_is_deleted(access: Access, store: Mirror) -> None:
    await create_user(access, "u@pve", by=ROOT)
    for number in range(60):
        await create_token(access, "u@pve", f"t{number}", by=ROOT, fields={})
        await change_acl(access, f"/vms/{100 + number}", ["PVEVMUser"], by=ROOT, users=["u@pve"])
    await delete_user(access, "u@pve", by=ROOT)
    assert [i.key for room in (ACL, TOKEN, TOKEN_SECRET) for i in store.list(room)] == []


async def test_root_cannot_be_deleted(access: Access) -> None:
    with pytest.raises(Forbidden):
        await delete_user(access, ROOT, by=ROOT)
    with pytest.raises(NotFound):
        await delete_user(access, "nobody@pve", by=ROOT)


async def test_a_recreated_group_or_role_is_another_one(access: Access) -> None:
    await create_user(access, "u@pve", by=ROOT)
    await create_group(access, "g")
    await create_role(access, "r", ["VM.Audit"])
    await update_user(access, "u@pve", by=ROOT, fields={}, groups=["g"])
    await change_acl(access, "/vms", ["r"], by=ROOT, groups=["g"])
    assert set(have(access, "u@pve", "/vms")) == {"VM.Audit"}
    await delete_role(access, "r")
    await create_role(access, "r", ["VM.Allocate"])
    assert set(have(access, "u@pve", "/vms")) == set()
    await change_acl(access, "/vms", ["r"], by=ROOT, groups=["g"])
    assert set(have(access, "u@pve", "/vms")) == {"VM.Allocate"}
    await delete_group(access, "g")
    await create_group(access, "g")
    assert access.policy.members_of("g") == []
    with pytest.raises(Conflict):
        await create_group(access, "g")


async def test_built_in_roles_stay(access: Access) -> None:
    for change in (
        update_role(access, "PVEAuditor", ["VM.Audit"], by=ROOT), delete_role(access, "NoAccess"),
        create_role(access, "PVEmine"), create_role(access, "mine", ["VM.Everything"]),
    ):  # fmt: skip
        with pytest.raises(BadInput):
            await change
    with pytest.raises(Conflict):
        await create_role(access, "Administrator")
    await create_role(access, "mine", ["VM.Audit"])
    await update_role(access, "mine", ["VM.Console"], by=ROOT, append=True)
    assert access.policy.roles["mine"].privs == {"VM.Audit", "VM.Console"}
    await update_role(access, "mine", ["VM.Clone"], by=ROOT)
    assert access.policy.roles["mine"].privs == {"VM.Clone"}


async def test_acl_changes(access: Access) -> None:
    await create_user(access, "u@pve", by=ROOT)
    await change_acl(access, "/vms/100/", ["PVEVMUser", "PVEAuditor"], by=ROOT, users=["u@pve"], propagate=False)
    (grant,) = access.policy.grants
    assert (grant.path, dict(grant.roles)) == ("/vms/100", {"PVEVMUser": False, "PVEAuditor": False})
    await change_acl(access, "/vms/100", ["PVEVMUser"], by=ROOT, users=["u@pve"])
    assert dict(access.policy.grants[0].roles) == {"PVEVMUser": True, "PVEAuditor": False}
    await change_acl(access, "/vms/100", ["PVEVMUser"], by=ROOT, users=["u@pve"], delete=True)
    await change_acl(access, "/vms/100", ["PVEAuditor"], by=ROOT, users=["u@pve"], delete=True)
    assert access.store.list(ACL) == []


@pytest.mark.parametrize(
    ("field", "path", "roles", "who"),
    [
        ("path", "vms", ["PVEAuditor"], {"users": ["u@pve"]}),
        ("path", "/vms/1", ["PVEAuditor"], {"users": ["u@pve"]}),
        ("path", "/nosuch", ["PVEAuditor"], {"users": ["u@pve"]}),
        ("path", "/pool/a/b/c/d", ["PVEAuditor"], {"users": ["u@pve"]}),
        ("path", "/vms/100|x", ["PVEAuditor"], {"users": ["u@pve"]}),
        ("path", "/vms/100\n", ["PVEAuditor"], {"users": ["u@pve"]}),
        ("roles", "/", ["Nope"], {"users": ["u@pve"]}),
        ("roles", "/", [], {"users": ["u@pve"]}),
        ("users", "/", ["PVEAuditor"], {}),
        ("users", "/", ["PVEAuditor"], {"users": ["x@pve"]}),
        ("groups", "/", ["PVEAuditor"], {"groups": ["x"]}),
        ("tokens", "/", ["PVEAuditor"], {"tokens": ["u@pve!x"]}),
        ("tokens", "/", ["PVEAuditor"], {"tokens": ["u@pve"]}),
    ],
)
async def test_bad_acl_names_the_field(
    access: Access, store: Mirror, field: str, path: str, roles: list[str], who: dict[str, list[str]]
) -> None:
    await put_user(access, "u@pve")
    before = store.revision
    with pytest.raises(BadInput) as caught:
        await change_acl(access, path, roles, by=ROOT, **who)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert store.revision == before


async def staff(access: Access) -> None:
    """An administrator, a help desk, an owner of VM 100, a plain user."""
    for name in ("admin@pve", "help@pve", "owner@pve", "plain@pve"):
        await create_user(access, name, by=ROOT, password="a password")
    await put_acl(access, "/", "user", "admin@pve", Administrator=True)
    await put_acl(access, "/access", "user", "help@pve", PVEUserAdmin=True)
    await put_acl(access, "/vms/100", "user", "owner@pve", PVEVMAdmin=True)
    await put_group(access, "admins")
    await put_acl(access, "/", "group", "admins", Administrator=True)


async def test_nobody_takes_over_a_stronger_account(access: Access, store: Mirror) -> None:
    """Rows 12, 13: every route to another's credentials. Planted fault: `may_change_user` that returns at once."""
    await staff(access)
    await create_token(access, "admin@pve", "t", by=ROOT, fields={})
    before = store.revision
    for by in ("help@pve", "owner@pve"):
        for target in ("admin@pve", ROOT):
            for route in (
                set_password(access, target, "stolen password", by=by),
                create_token(access, target, "x", by=by, fields={"privsep": False}),
                update_user(access, target, by=by, fields={"enable": False}),
                delete_user(access, target, by=by),
            ):
                with pytest.raises(Forbidden):
                    await route
        for change in (
            update_token(access, "admin@pve", "t", by=by, fields={"privsep": False}, regenerate=True),
            delete_token(access, "admin@pve", "t", by=by),
            update_user(access, "plain@pve", by=by, fields={}, groups=["admins"]),
            update_user(access, by, by=by, fields={}, groups=["admins"]),
            create_user(access, "new@pve", by=by, groups=["admins"]),
        ):
            with pytest.raises(Forbidden):
                await change
    assert store.revision == before
    await set_password(access, "plain@pve", "new password", by="help@pve")
    await set_password(access, "help@pve", "new password", by="admin@pve")
    await update_user(access, "plain@pve", by="admin@pve", fields={}, groups=["admins"])
    with pytest.raises(Forbidden):
        await set_password(access, "plain@pve", "new password", by="help@pve")


async def test_a_limited_token_is_not_its_user(access: Access) -> None:
    """Row 12. Planted fault: `own_account` that ignores `limited`."""
    await staff(access)
    await create_token(access, "admin@pve", "lim", by=ROOT, fields={})
    await put_acl(access, "/access", "token", "admin@pve!lim", PVEUserAdmin=True)
    by = "admin@pve!lim"
    for change in (
        create_token(access, "admin@pve", "x", by=by, fields={"privsep": False}),
        update_token(access, "admin@pve", "lim", by=by, fields={"privsep": False}),
        set_password(access, "admin@pve", "stolen password", by=by),
        delete_user(access, "admin@pve", by=by),
    ):
        with pytest.raises(Forbidden):
            await change
    assert access.policy.tokens["admin@pve!lim"].privsep
    await create_token(access, ROOT, "lim", by=ROOT, fields={})
    with pytest.raises(Forbidden):
        await create_token(access, ROOT, "x", by="root@pam!lim", fields={"privsep": False})


async def test_nobody_grants_more_than_he_has(access: Access, store: Mirror) -> None:
    """Planted faults: `may_grant` that returns at once; that forgets NoAccess, propagation, one's own entries."""
    await staff(access)
    await create_role(access, "strong", ["VM.Audit", "Sys.Modify"])
    await change_acl(access, "/vms/100", ["PVEVMUser"], by="owner@pve", users=["plain@pve"])
    assert "VM.Console" in have(access, "plain@pve", "/vms/100")
    before = store.revision
    for path, role, more in (
        ("/vms/100", "Administrator", {"users": ["plain@pve"]}),
        ("/vms/100", "strong", {"users": ["owner@pve"]}),
        ("/vms/100", "NoAccess", {"users": ["plain@pve"]}),
        ("/vms/101", "PVEVMUser", {"users": ["plain@pve"]}),
        ("/", "PVEVMUser", {"users": ["owner@pve"]}),
    ):
        with pytest.raises(Forbidden):
            await change_acl(access, path, [role], by="owner@pve", **more)  # type: ignore[arg-type]
    with pytest.raises(Forbidden):
        await change_acl(access, "/vms/100", ["PVEVMAdmin"], by="owner@pve", users=["owner@pve"], delete=True)
    assert store.revision == before
    await change_acl(access, "/vms/100", ["PVEVMUser"], by="owner@pve", users=["plain@pve"], delete=True)
    await change_acl(access, "/vms/100", ["NoAccess"], by="admin@pve", users=["plain@pve"])
    await put_acl(access, "/vms/200", "user", "plain@pve", Administrator=False)
    with pytest.raises(Forbidden, match="does not propagate"):
        await change_acl(access, "/vms/200", ["PVEVMUser"], by="plain@pve", users=["help@pve"])
    await change_acl(access, "/vms/200", ["PVEVMUser"], by="plain@pve", users=["help@pve"], propagate=False)


async def test_a_role_in_use_is_not_widened_beyond_ones_own(access: Access) -> None:
    """Planted fault: `may_widen_role` that returns at once."""
    await staff(access)
    await create_role(access, "editor", ["Sys.Modify"])
    await create_role(access, "mine", ["VM.Audit"])
    await put_acl(access, "/access", "user", "owner@pve", editor=True)
    await put_acl(access, "/vms", "user", "owner@pve", mine=True)
    with pytest.raises(Forbidden):
        await update_role(access, "mine", ["VM.Allocate"], by="owner@pve", append=True)
    with pytest.raises(Forbidden):
        await update_role(access, "mine", ["Permissions.Modify"], by="owner@pve")
    await update_role(access, "mine", [], by="owner@pve")
    await update_role(access, "mine", ["VM.Allocate"], by="admin@pve")


async def test_tokens(access: Access, clock: FakeClock) -> None:
    await create_user(access, "u@pve", by=ROOT, fields={"expire": 1_900_000_000})
    token, secret = await create_token(access, "u@pve", "t", by="u@pve", fields={"comment": "c"})
    assert (token.full, token.privsep, token.expire, token.comment) == ("u@pve!t", True, 1_900_000_000, "c")
    assert len(secret) == 36
    assert secret not in str([i.value for i in access.store.list("")])
    with pytest.raises(Conflict):
        await create_token(access, "u@pve", "t", by=ROOT, fields={})
    _, none = await update_token(access, "u@pve", "t", by="u@pve", fields={"expire": 0, "user_uid": "forged"})
    assert none is None
    assert access.policy.tokens["u@pve!t"].expire == 0
    _, newer = await update_token(access, "u@pve", "t", by="u@pve", fields={}, regenerate=True)
    with pytest.raises(NotAuthenticated):
        await authenticate(access, None, f"u@pve!t={secret}", None, False)
    await authenticate(access, None, f"u@pve!t={newer}", None, False)
    await delete_token(access, "u@pve", "t", by="u@pve")
    with pytest.raises(NotAuthenticated):
        await authenticate(access, None, f"u@pve!t={newer}", None, False)
    with pytest.raises(NotFound):
        await delete_token(access, "u@pve", "t", by="u@pve")


async def test_pam_passwords_come_from_chpasswd(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    from panal.access.realms import PamRealm, pam
    from panal.core.errors import ProgramFailed

    calls: list[tuple[list[str], bytes | None]] = []

    async def run(argv: list[str], *, timeout_s: float, stdin: bytes | None = None) -> None:
        calls.append((argv, stdin))
        if stdin is not None and stdin.startswith(b"ghost:"):
            raise ProgramFailed("chpasswd", 1, "no such user")

    monkeypatch.setattr(pam, "run", run)
    realm = PamRealm()
    assert await realm.new_password(access, "bob@pam", "", "a password") == []
    assert calls == [(["chpasswd"], b"bob:a password\n")]  # a secret is never in argv
    for bad in ("two\nroot:owned", "a\rb", "a\0b"):
        with pytest.raises(BadInput):
            await realm.new_password(access, "bob@pam", "", bad)
    with pytest.raises(Failed, match="Linux account 'ghost'"):
        await realm.new_password(access, "ghost@pam", "", "a password")
    assert not await realm.check(access, access.policy.users[ROOT], "")


async def test_pools(access: Access) -> None:
    """Planted fault: `update_pool` that does not look at the other pools."""
    await create_pool(access, "a", "first")
    await create_pool(access, "a/b")
    await create_pool(access, "a/b/c")
    for name, error in (("a", Conflict), ("x/y", BadInput)):
        with pytest.raises(error):
            await create_pool(access, name)
    await update_pool(access, "a", vms=[101, 100, 100], storages=["s"])
    assert (find(access, "a").vms, find(access, "a").storages) == ((100, 101), ("s",))
    with pytest.raises(BadInput, match="VM 100 is already a member of pool 'a'") as caught:
        await update_pool(access, "a/b", vms=[102, 100])
    assert caught.value.field == "vms"
    assert find(access, "a/b").vms == ()
    await update_pool(access, "a/b", vms=[102, 100], allow_move=True)
    assert (find(access, "a").vms, find(access, "a/b").vms) == ((101,), (100, 102))
    assert access.pool_of(100) == "a/b"
    with pytest.raises(BadInput, match="not a pool member"):
        await update_pool(access, "a", vms=[100], delete=True)
    for busy in ("a", "a/b"):
        with pytest.raises(Conflict, match="not empty"):
            await delete_pool(access, busy)
    await update_pool(access, "a", vms=[101], storages=["s"], delete=True, comment="changed")
    assert find(access, "a").comment == "changed"
    await delete_pool(access, "a/b/c")
    with pytest.raises(NotFound):
        await delete_pool(access, "a/b/c")


async def test_a_guest_ends_in_one_pool_whoever_is_faster(access: Access) -> None:
    """Planted fault: `_change` without the check of the epoch."""
    for name in ("a", "b", "c", "d"):
        await create_pool(access, name)
    results = await asyncio.gather(*(join_pool(access, name, 100) for name in "abcd"), return_exceptions=True)
    assert sum(isinstance(r, BadInput) for r in results) == 3
    assert sum(100 in i.value["vms"] for i in access.store.list(POOL)) == 1
    await asyncio.gather(*(join_pool(access, "a", vmid) for vmid in range(200, 220)))
    assert len([v for v in find(access, "a").vms if v >= 200]) == 20


async def test_a_deleted_guest_or_storage_leaves_no_rights(access: Access) -> None:
    """Row 19 for guests. Planted fault: `forget_guest` without the permissions."""
    await create_user(access, "u@pve", by=ROOT)
    await create_pool(access, "a")
    await update_pool(access, "a", vms=[100, 101], storages=["s", "t"])
    await change_acl(access, "/pool/a", ["PVEVMUser"], by=ROOT, users=["u@pve"])
    await change_acl(access, "/vms/100", ["PVEVMAdmin"], by=ROOT, users=["u@pve"])
    await change_acl(access, "/storage/s", ["PVEDatastoreUser"], by=ROOT, users=["u@pve"])
    await forget_guest(access, 100)
    await forget_storage(access, "s")
    assert dict(have(access, "u@pve", "/vms/100")) == {}
    assert dict(have(access, "u@pve", "/storage/s")) == {}
    assert have(access, "u@pve", "/vms/101")
    assert access.pool_of(100) is None


async def test_realms(access: Access) -> None:
    with pytest.raises(BadInput) as caught:
        await create_realm(access, "corp", "ldap")
    assert caught.value.field == "type"
    assert "pam, pve" in caught.value.message
    with pytest.raises(Conflict):
        await create_realm(access, "pam", "pam")
    with pytest.raises(BadInput, match="only one realm of type 'pve'"):
        await create_realm(access, "other", "pve")
    old = digest(access)
    await update_realm(access, "pve", {"default": True, "comment": "ours"})
    await update_realm(access, "pam", {"default": True}, ("comment",), digest(access))
    assert [i.value.get("default", False) for i in access.store.list(REALM)] == [True, False]
    with pytest.raises(Conflict, match="detected modified configuration"):
        await update_realm(access, "pve", {"comment": "x"}, (), old)
    with pytest.raises(BadInput) as caught:
        await update_realm(access, "pve", {"server1": "x"})
    assert caught.value.field == "server1"
    with pytest.raises(BadInput):
        await delete_realm(access, "pve")
    with pytest.raises(NotFound):
        await delete_realm(access, "nope")
    with pytest.raises(Unsupported):
        await sync_realm(access, "pve")
