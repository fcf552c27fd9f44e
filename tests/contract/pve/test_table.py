"""The declared method table against the facts: names, types, limits, permission forms, returns. Differences are listed here,
with their reasons; everything else is a failure."""

from __future__ import annotations

from typing import Any

import pytest

from panal.api import permission as p
from panal.api import schema
from panal.api.all_routes import table
from panal.api.table import Method
from tests.contract.pve import facts

TABLE = {(m.verb, m.path): m for m in table().methods if m.noun != "index"}
KNOWN = {key: m for key, m in TABLE.items() if key in facts.endpoints()}
IDS = [f"{verb} {path}" for verb, path in KNOWN]

# Methods that two or more clients use and that this issue leaves out, by reason.
LATER = {
    "hot plug, agent, cloud-init, VNC, foreign import: the issue 'the whole VM'": (
        "/nodes/{node}/qemu/{vmid}/agent",
        "/nodes/{node}/qemu/{vmid}/cloudinit",
    ),
    "containers, whose images it fetches, are not there yet": ("/nodes/{node}/storage/{storage}/oci-registry-pull",),
    "network: read only in this issue": (
        "POST /nodes/{node}/network",
        "PUT /nodes/{node}/network",
        "DELETE /nodes/{node}/network",
    ),
}

# (verb, path) → why our permission form is not the one of the facts
OTHER_PERMISSION: dict[tuple[str, str], str] = {}
# (verb, path, parameter) → why it differs
OTHER_PARAMETER: dict[tuple[str, str, str], str] = {
    **{
        (verb, path, "content"): "snippets too, which PVE's API cannot"
        for verb, path in (
            ("POST", "/nodes/{node}/storage/{storage}/upload"),
            ("POST", "/nodes/{node}/storage/{storage}/download-url"),
        )
    },
    **dict.fromkeys(
        (
            ("GET", "/storage", "type"),
            ("POST", "/storage", "type"),
            ("POST", "/storage", "format"),
            ("PUT", "/storage/{storage}", "format"),
            ("POST", "/nodes/{node}/storage/{storage}/content", "format"),
        ),
        "only what the storage types of this version can do",
    ),
    **{
        (verb, path, name): "known so that the refusal of LDAP realms can name it; no values yet"
        for verb, path in (("POST", "/access/domains"), ("PUT", "/access/domains/{realm}"))
        for name in ("mode", "port", "sslversion")
    },
    ("GET", "/nodes/{node}/config", "property"): "more of the same kind (all, location), read only",
    ("POST", "/nodes/{node}/qemu", "vmid"): "ours may be left out: the next free number is taken",
    ("GET", "/nodes/{node}/qemu/{vmid}/rrddata", "timeframe"): "the newer `decade` is taken too",
    ("GET", "/nodes/{node}/storage/{storage}/rrddata", "timeframe"): "the newer `decade` is taken too",
    (
        "GET",
        "/nodes/{node}/tasks",
        "limit",
    ): "has a bound: one answer never holds more than all the tasks that are kept",
}
# (verb, path) → parameters of the facts that are not taken, and why
# (verb, path) → why the answer is declared otherwise
OTHER_RETURNS: dict[tuple[str, str], str] = {
    ("GET", "/cluster/nextid"): "a string in practice, whatever the schema says",
}
OTHER_BACK_ENDS = {
    "authsupported", "base", "blocksize", "comstar_hg", "comstar_tg", "data-pool", "datastore", "domain", "encryption-key",
    "export", "fingerprint", "fs-name", "fuse", "iscsiprovider", "keyring", "krbd", "lio_tpg", "master-pubkey", "monhost",
    "mountpoint", "namespace", "nocow", "nowritecache", "options", "password", "pool", "port", "portal", "saferemove",
    "saferemove-stepsize", "saferemove_throughput", "server", "share", "skip-cert-verification", "smbversion", "sparse",
    "subdir", "tagged_only", "target", "thinpool", "username", "vgname", "zfs-base-path",
}  # fmt: skip
NOT_TAKEN: dict[tuple[str, str], tuple[set[str], str]] = {
    ("POST", "/storage"): (OTHER_BACK_ENDS, "each comes with its storage driver"),
    ("PUT", "/storage/{storage}"): (OTHER_BACK_ENDS, "each comes with its storage driver"),
}


def later(key: tuple[str, str]) -> bool:
    text = " ".join(key)
    return any(
        text.startswith(prefix) if " " in prefix else key[1].startswith(prefix)
        for prefixes in LATER.values()
        for prefix in prefixes
    )


def test_every_method_that_clients_use_is_there():
    missing = sorted(k for k in facts.used() if k not in TABLE and not later(k))
    assert not missing, "\n".join(f"{v} {path}" for v, path in missing)


def test_what_is_put_off_is_not_there():
    """The list above must not grow stale."""
    assert not [k for k in facts.used() if k in TABLE and later(k)]


def test_ours_are_named_as_ours():
    """Only PVE's paths may look like PVE's."""
    strangers = [k for k, m in TABLE.items() if k not in facts.endpoints() and not m.ours]
    assert not strangers


@pytest.mark.parametrize("method", KNOWN.values(), ids=IDS)
def test_parameters(method: Method):
    wanted = facts.params().get((method.verb, method.path), {})
    have = {(f"{q.name}[n]" if q.count is not None else q.name): q for q in method.params}
    problems = []
    dropped, _ = NOT_TAKEN.get((method.verb, method.path), (set(), ""))
    for name, fact in wanted.items():
        if name in method.path_params or (method.verb, method.path, name) in OTHER_PARAMETER or name in dropped:
            continue
        param = have.get(name)
        if param is None:
            problems.append(f"{name}: missing")
            continue
        if param.type != fact["type"] and not (fact["type"] in ("array", "any") and param.type == "string"):
            problems.append(f"{name}: is {param.type}, not {fact['type']}")
        if param.required != (fact["required"] == "1"):
            problems.append(f"{name}: required is {param.required}")
        for key in ("minimum", "maximum"):
            bound = getattr(param, key)
            if (float(fact[key]) if fact[key] else None) != (None if bound is None else float(bound)):
                problems.append(f"{name}: {key} {bound}, not {fact[key] or None}")
        if fact["enum"] and set(param.enum) != facts.enum(fact["enum"]):
            problems.append(f"{name}: enum {param.enum}, not {fact['enum']}")
    for name in have:
        if name not in wanted and name not in method.path_params and not name.startswith("panal-"):
            problems.append(f"{name}: not one of PVE's; ours are named panal-…")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("method", KNOWN.values(), ids=IDS)
def test_permission(method: Method):
    """Planted fault: VM.Audit instead of VM.PowerMgmt on status/start fails this."""
    key = (method.verb, method.path)
    fact = facts.permission(facts.endpoints()[key]["permission"])
    ours = of_ours(method.permission)
    if key in OTHER_PERMISSION:
        assert ours != fact, "the exception is no longer needed"
    elif fact == "user:all":
        assert ours in ("user:all", "described")
    else:
        assert ours == fact


@pytest.mark.parametrize("method", KNOWN.values(), ids=IDS)
def test_forwarding_and_tokens(method: Method):
    fact = facts.endpoints()[method.verb, method.path]
    assert method.allow_token == (fact["allowtoken"] != "0")
    if "{node}" in method.path and method.path != "/nodes/{node}":
        assert method.forward == "node", "a method below a node is answered by that node"


@pytest.mark.parametrize("method", KNOWN.values(), ids=IDS)
def test_returns(method: Method):
    """What the facts promise is declared, with its type; we may declare more."""
    if (method.verb, method.path) in OTHER_RETURNS:
        return
    problems = list(
        _narrower(schema.parse(method.returns), schema.parse(facts.returns()[method.verb, method.path]), "data")
    )
    assert not problems, "\n".join(problems)


def _narrower(ours: schema.Shape, fact: schema.Shape, where: str) -> Any:
    if fact.kind == "any" or (fact.kind == "object" and not fact.fields):
        return
    if ours.kind != fact.kind:
        yield f"{where}: {ours.kind}, not {fact.kind}"
        return
    if fact.item is not None and ours.item is not None:
        yield from _narrower(ours.item, fact.item, f"{where}[]")
    for name, (required, inner) in fact.fields.items():
        if name not in ours.fields:
            # what may be missing and never comes from us need not be declared
            if not required:
                continue
            yield f"{where}.{name}: not declared"
            continue
        if required and not ours.fields[name][0]:
            yield f"{where}.{name}: optional, but PVE always has it"
        yield from _narrower(ours.fields[name][1], inner, f"{where}.{name}")


def of_ours(form: p.Permission) -> Any:
    """Our form in the notation of facts.permission."""
    match form:
        case p.World():
            return "user:world"
        case p.AnyUser():
            return "user:all"
        case p.RootOnly():
            return "root-only"
        case p.Described():
            return "described"
        case p.Perm():
            privs = tuple(sorted(set(form.privs)))
            return ("perm", form.path, privs, form.any_of and len(privs) > 1, form.when)
        case p.AllOf():
            return ("and", *sorted((of_ours(f) for f in form.forms), key=repr))
        case p.OneOf():
            return ("or", *sorted((of_ours(f) for f in form.forms), key=repr))
        case p.Self():
            return ("userid-param", "self")
        case p.RealmPriv():
            return ("userid-param", form.priv)
        case p.UserGroup():
            return ("userid-group", tuple(sorted(form.privs)), form.groups_param)
        case p.PermModify():
            return ("perm-modify", "{path}")
    raise AssertionError(f"unknown form {form!r}")


def test_every_notation_can_be_read():
    for method in table().methods:
        schema.parse(method.returns)
