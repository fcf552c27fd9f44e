"""The permission walk: a table of cases, and properties over random trees."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panal.access import Access, privileges
from panal.access.model import POOL, TOKEN, Json, new_uid
from panal.access.policy import build
from panal.access.rights import UserRights
from panal.cluster.store import Put
from tests.soaking import examples
from tests.unit.access.conftest import put_acl, put_group, put_role, put_user

AUDITOR = set(privileges.ROLES["PVEAuditor"])
VM_USER = set(privileges.ROLES["PVEVMUser"])
DATASTORE = set(privileges.ROLES["PVEDatastoreUser"])


def test_the_tables_have_47_privileges_and_17_roles() -> None:
    assert len(privileges.ALL) == 47
    assert len(privileges.ROLES) == 17
    assert all(role <= privileges.ALL for role in privileges.ROLES.values())
    assert privileges.ROLES["NoAccess"] == frozenset()
    assert len(privileges.ROLES["PVEVMUser"]) == 10
    assert privileges.APEX <= privileges.ALL


def have(access: Access, userid: str, path: str) -> set[str]:
    return set(access.rights(userid).privileges(path))


async def test_root_has_everything_everywhere_and_nobody_nothing(access: Access) -> None:
    assert have(access, "root@pam", "/vms/100") == privileges.ALL
    assert access.rights("root@pam").is_root
    for userid in ("nobody@pve", "root@pve", "root@pam!nosuch", "", "root"):
        assert have(access, userid, "/") == set()
        assert not access.rights(userid).is_root


async def test_a_deeper_level_replaces_what_came_from_above(access: Access) -> None:
    """Planted fault: `_down` that merges instead of replacing."""
    await put_user(access, "u@pve")
    await put_acl(access, "/", "user", "u@pve", PVEAuditor=True)
    await put_acl(access, "/vms", "user", "u@pve", PVEVMUser=True)
    await put_acl(access, "/vms/100", "user", "u@pve", NoAccess=True)
    assert have(access, "u@pve", "/") == AUDITOR
    assert have(access, "u@pve", "/nodes/a") == AUDITOR
    assert have(access, "u@pve", "/vms") == VM_USER
    assert have(access, "u@pve", "/vms/101") == VM_USER
    for path in ("/vms/100", "/vms/100/", "//vms//100", "/vms/100/x"):
        assert have(access, "u@pve", path) == set(), path


async def test_without_propagation_only_the_path_itself(access: Access) -> None:
    """Planted fault: `level_table` that hands everything down."""
    await put_user(access, "u@pve")
    await put_acl(access, "/", "user", "u@pve", PVEAuditor=True)
    await put_acl(access, "/vms", "user", "u@pve", PVEVMUser=False)
    assert have(access, "u@pve", "/vms") == VM_USER
    assert have(access, "u@pve", "/vms/100") == AUDITOR
    assert access.rights("u@pve").privileges("/vms")["VM.Audit"] is False
    assert access.rights("u@pve").privileges("/vms/100")["VM.Audit"] is True


@pytest.mark.parametrize("handed_down", ["PVEAuditor", "PVEVMUser"])
async def test_a_privilege_of_two_roles_propagates_when_one_of_them_does(access: Access, handed_down: str) -> None:
    """Planted fault: the flag of the role that is read last counts (either may be the last)."""
    await put_user(access, "u@pve")
    roles = {"PVEAuditor": False, "PVEVMUser": False, handed_down: True}
    await put_acl(access, "/vms", "user", "u@pve", **roles)
    found = access.rights("u@pve").privileges("/vms")
    assert set(found) == AUDITOR | VM_USER
    assert AUDITOR & VM_USER and AUDITOR ^ VM_USER
    assert {p for p, propagates in found.items() if propagates} == set(privileges.ROLES[handed_down])


async def test_user_beats_groups_and_groups_are_joined(access: Access) -> None:
    """Planted fault: ranks in the wrong order."""
    await put_user(access, "u@pve")
    await put_group(access, "g1", "u@pve")
    await put_group(access, "g2", "u@pve")
    await put_acl(access, "/vms", "group", "g1", PVEVMUser=True)
    await put_acl(access, "/vms", "group", "g2", PVEDatastoreUser=True)
    assert have(access, "u@pve", "/vms/100") == VM_USER | DATASTORE
    await put_acl(access, "/vms", "user", "u@pve", PVEAuditor=True)
    assert have(access, "u@pve", "/vms/100") == AUDITOR
    await put_acl(access, "/vms/100", "group", "g1", NoAccess=True)
    assert have(access, "u@pve", "/vms/100") == set()


async def test_one_noaccess_empties_the_union_of_groups(access: Access) -> None:
    """Planted fault: NoAccess treated as an empty role."""
    await put_user(access, "u@pve")
    await put_group(access, "g1", "u@pve")
    await put_group(access, "g2", "u@pve")
    await put_acl(access, "/vms", "group", "g1", Administrator=True)
    await put_acl(access, "/vms", "group", "g2", NoAccess=True)
    assert have(access, "u@pve", "/vms/100") == set()


async def put_pool(access: Access, name: str, *, vms: tuple[int, ...] = (), storages: tuple[str, ...] = ()) -> None:
    value = {"v": 1, "uid": new_uid(), "comment": "", "vms": list(vms), "storages": list(storages)}
    await access.store.txn([], [Put(POOL + name, value)])


async def test_a_pools_roles_are_added_on_members_but_never_over_noaccess(access: Access) -> None:
    """Planted faults: pool roles over NoAccess; pool roles that propagate; nested pools not walked."""
    await put_user(access, "u@pve")
    await put_pool(access, "p", vms=(100, 101), storages=("fast",))
    await put_pool(access, "p/sub", vms=(102,))
    await put_acl(access, "/pool/p", "user", "u@pve", PVEVMUser=True)
    await put_acl(access, "/storage", "user", "u@pve", PVEDatastoreUser=True)
    await put_acl(access, "/vms/101", "user", "u@pve", NoAccess=True)
    assert have(access, "u@pve", "/vms/100") == VM_USER
    assert access.rights("u@pve").privileges("/vms/100")["VM.Audit"] is False
    assert have(access, "u@pve", "/vms/101") == set()
    assert have(access, "u@pve", "/vms/102") == VM_USER
    assert have(access, "u@pve", "/vms/103") == set()
    assert have(access, "u@pve", "/storage/fast") == VM_USER | DATASTORE
    await put_acl(access, "/pool/p", "user", "u@pve", NoAccess=True)
    await put_acl(access, "/vms", "user", "u@pve", Administrator=True)
    assert have(access, "u@pve", "/vms/100") == set()


async def put_token(access: Access, userid: str, tokenid: str, privsep: bool) -> None:
    value = {
        "v": 1, "uid": new_uid(), "userid": userid, "tokenid": tokenid, "privsep": privsep, "expire": 0,
        "user_uid": access.policy.users[userid].uid,
    }  # fmt: skip
    await access.store.txn([], [Put(f"{TOKEN}{userid}!{tokenid}", value)])


async def test_tokens(access: Access) -> None:
    """Planted faults: union instead of intersection; root's limited token seen as root."""
    await put_user(access, "u@pve")
    await put_acl(access, "/vms", "user", "u@pve", PVEVMUser=True)
    for owner in ("u@pve", "root@pam"):
        await put_token(access, owner, "full", False)
        await put_token(access, owner, "sep", True)
        assert have(access, f"{owner}!sep", "/vms/100") == set()
        await put_acl(access, "/vms", "token", f"{owner}!sep", PVEAuditor=True, PVEDatastoreUser=False)
    assert have(access, "u@pve!full", "/vms/100") == VM_USER
    assert have(access, "u@pve!sep", "/vms/100") == VM_USER & AUDITOR
    assert have(access, "u@pve!sep", "/vms") == VM_USER & AUDITOR
    assert have(access, "root@pam!full", "/x") == privileges.ALL
    assert access.rights("root@pam!full").is_root
    assert have(access, "root@pam!sep", "/vms/100") == AUDITOR
    assert have(access, "root@pam!sep", "/vms") == AUDITOR | DATASTORE
    assert not access.rights("root@pam!sep").is_root


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("user", [True, False])
async def test_a_limited_token_hands_down_only_what_both_hand_down(access: Access, user: bool, token: bool) -> None:
    """Planted fault: `_both` that takes the token's own flag alone."""
    await put_user(access, "u@pve")
    await put_token(access, "u@pve", "sep", True)
    await put_acl(access, "/vms", "user", "u@pve", PVEVMUser=user)
    await put_acl(access, "/vms", "token", "u@pve!sep", PVEAuditor=token)
    found = access.rights("u@pve!sep").privileges("/vms")
    assert dict(found) == dict.fromkeys(VM_USER & AUDITOR, user and token)
    assert have(access, "u@pve!sep", "/vms/100") == (VM_USER & AUDITOR if user and token else set())


async def test_a_user_whose_name_looks_like_a_token_is_not_one(access: Access) -> None:
    await put_user(access, "u@pve!t@pve")
    await put_user(access, "u@pve")
    await put_acl(access, "/", "user", "u@pve", Administrator=True)
    assert have(access, "u@pve!t@pve", "/") == set()
    assert access.rights("u@pve!t@pve").owner == "u@pve!t@pve"


async def test_changes_count_at_once_and_login_counters_do_not_rebuild(access: Access) -> None:
    """Planted fault: `_changed` that ignores pools."""
    await put_user(access, "u@pve")
    await put_role(access, "mine", "VM.Audit")
    await put_acl(access, "/vms", "user", "u@pve", mine=True)
    before = access.policy
    await access.store.txn([], [Put("access/lockout/u@pve", {"v": 1})])
    assert access.policy is before
    assert have(access, "u@pve", "/vms/1") == {"VM.Audit"}
    await put_pool(access, "p", vms=(100,))
    assert access.policy is not before
    await put_role(access, "mine", "VM.Audit", "VM.Console")  # another role of the same name
    assert have(access, "u@pve", "/vms/1") == set()


async def test_endless_paths_are_answered(access: Access) -> None:
    """Planted fault: no DEPTH_LIMIT ends in a RecursionError."""
    await put_user(access, "u@pve")
    await put_acl(access, "/", "user", "u@pve", PVEAuditor=True)
    assert have(access, "u@pve", "/a" * 20_000) == set()
    rights = access.rights("u@pve")
    for number in range(20_000):
        rights.privileges(f"/x{number}/y")
    assert len(rights._handed_down) <= 5000


ROLES = ["PVEAuditor", "PVEVMUser", "PVEDatastoreUser", "Administrator", "NoAccess"]
PATHS = ["/", "/vms", "/vms/100", "/vms/101", "/pool", "/pool/p", "/storage", "/storage/s"]
grants = st.lists(
    st.tuples(
        st.sampled_from(PATHS), st.sampled_from([("user", "u@pve"), ("group", "g"), ("group", "h")]),
        st.sampled_from(ROLES), st.booleans(),
    ),
    max_size=10,
)  # fmt: skip


def world(rows: list[tuple[str, tuple[str, str], str, bool]], pooled: bool = True) -> UserRights:
    user: Json = {"v": 1, "uid": "U", "groups": {"g": "G", "h": "H"}}
    items: list[tuple[str, Json]] = [
        ("access/user/u@pve", user),
        ("access/group/g", {"uid": "G"}),
        ("access/group/h", {"uid": "H"}),
    ]
    held: dict[tuple[str, str, str], dict[str, object]] = {}
    for path, (kind, name), role, propagate in rows:
        roles = held.setdefault((path, kind, name), {})
        roles[role] = {"propagate": propagate, "uid": "built-in"}
    for number, ((path, kind, name), roles) in enumerate(held.items()):
        uid = {"u@pve": "U", "g": "G", "h": "H"}[name]
        row = {"path": path, "type": kind, "ugid": name, "uid": uid, "roles": roles}
        items.append((f"access/acl/{number}", row))
    if pooled:
        items.append(("pool/p", {"uid": "P", "vms": [100], "storages": ["s"]}))
    return build(items).rights("u@pve")


def reference(rows: list[tuple[str, tuple[str, str], str, bool]], path: str) -> set[str] | None:
    """Roles on a path by the sentence in the documentation, as slowly as possible; pools left out."""
    last: dict[tuple[str, tuple[str, str], str], bool] = {(p, s, r): g for p, s, r, g in rows}
    parts = [p for p in path.split("/") if p]
    levels = ["/", *("/" + "/".join(parts[: n + 1]) for n in range(len(parts)))]
    roles: set[str] = set()
    for level in levels:
        for kind in ("user", "group"):
            here = {r for (p, s, r), g in last.items() if p == level and s[0] == kind and (g or level == path)}
            if here:
                roles = here
                break
    return roles


@settings(max_examples=examples(300), deadline=None)
@given(grants, st.sampled_from([*PATHS, "/vms/999", "/nodes/a"]))
def test_walk_agrees_with_a_slow_reading_of_the_rule(
    rows: list[tuple[str, tuple[str, str], str, bool]], path: str
) -> None:
    roles = reference(rows, path) or set()
    wanted: set[str] = set() if "NoAccess" in roles else {p for r in roles for p in privileges.ROLES[r]}
    assert set(world(rows, pooled=False).privileges(path)) == wanted


@settings(max_examples=examples(200), deadline=None)
@given(grants)
def test_pools_only_add_unless_noaccess(rows: list[tuple[str, tuple[str, str], str, bool]]) -> None:
    without, with_pool = world(rows, pooled=False), world(rows)
    for path in ("/vms/100", "/storage/s"):
        plain, pooled = set(without.privileges(path)), set(with_pool.privileges(path))
        pool_roles = reference(rows, "/pool/p") or set()
        if "NoAccess" in (reference(rows, path) or set()) or "NoAccess" in pool_roles:
            assert pooled == set()
        else:
            assert pooled == plain | {p for r in pool_roles for p in privileges.ROLES[r]}
    assert set(with_pool.privileges("/vms/101")) == set(without.privileges("/vms/101"))


@settings(max_examples=examples(200), deadline=None)
@given(grants, st.sampled_from(PATHS), st.sampled_from(ROLES[:4]))
def test_one_more_role_at_a_place_that_has_some_never_takes_away(
    rows: list[tuple[str, tuple[str, str], str, bool]], path: str, role: str
) -> None:
    """Monotony: more roles beside others give more, unless NoAccess rules there."""
    mine = [r for r in rows if r[0] == path and r[1][0] == "user"]
    if not mine:
        return
    before = set(world(rows, pooled=False).privileges(path))
    after = set(world([*rows, (path, ("user", "u@pve"), role, False)], pooled=False).privileges(path))
    assert before <= after or any(r == role for _, _, r, _ in mine)


async def test_ten_thousand_paths_share_their_answers(access: Access) -> None:
    """No timing: the answers are the very same object, so nothing was computed per path."""
    await put_user(access, "u@pve")
    await put_acl(access, "/", "user", "u@pve", PVEAdmin=True)
    rights = access.rights("u@pve")
    assert len({id(rights.privileges(f"/vms/{n}")) for n in range(100, 10_100)}) == 1
    assert len(rights._handed_down) == 2


@pytest.mark.parametrize("bad", ["PVEVMUser", "PVEAuditor"])
async def test_grants_of_a_recreated_subject_do_not_count(access: Access, bad: str) -> None:
    """Row 19. Planted fault: `_live_grant` without the uid comparison."""
    await put_user(access, "u@pve")
    await put_group(access, "g", "u@pve")
    await put_acl(access, "/vms", "user", "u@pve", **{bad: True})
    await put_acl(access, "/storage", "group", "g", **{bad: True})
    assert have(access, "u@pve", "/vms/1")
    await put_group(access, "g")  # made again; the old membership stays in the user's record
    assert have(access, "u@pve", "/storage/s") == set()
    assert access.policy.members_of("g") == []
    await put_user(access, "u@pve")
    assert have(access, "u@pve", "/vms/1") == set()
    assert access.policy.grants == ()
