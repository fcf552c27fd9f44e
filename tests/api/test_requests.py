"""Credentials in all places, bodies in all shapes, paths in all spellings: what PVE's clients send, over real HTTPS."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import ssl
from typing import Any
from urllib.parse import quote

import pytest
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException

from tests.api.conftest import PASSWORD


def connection(node: Any) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(node.run / "tls" / "ca.pem"))
    return http.client.HTTPSConnection("127.0.0.1", node.port, timeout=30, context=context)


def ask(node: Any, verb: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    conn = connection(node)
    conn.request(verb, f"/api2/json{path}", body, headers or {})
    answer = conn.getresponse()
    data = answer.read()
    conn.close()
    if answer.headers.get("Content-Encoding") == "gzip":
        data = gzip.decompress(data)
    return answer.status, answer.reason, json.loads(data) if data else None, answer.headers


@pytest.mark.parametrize(
    "spell",
    [
        lambda a: {"Cookie": f"PVEAuthCookie={quote(a.ticket, safe='')}"},
        lambda a: {"Cookie": f"x=1; PVEAuthCookie={a.ticket}"},
        lambda a: {"Authorization": f"PVEAuthCookie={a.ticket}"},
        lambda a: {"Authorization": f"PVEAuthCookie={quote(a.ticket, safe='')}"},
        lambda a: {"Authorization": f"PVEAPIToken={a.token}"},
        lambda a: {"Authorization": f"PVEAPIToken {a.token}"},
    ],
)
def test_credentials(node, admin, spell):
    assert ask(node, "GET", "/version", headers=spell(admin))[0] == 200


def test_change_with_a_ticket_needs_the_csrf_token(node, admin):
    """Row 5. Planted fault: `changes` always False in dispatch fails this."""
    body = "groupid=csrf"
    cookie = {"Cookie": admin.headers["Cookie"]}
    status, reason, _, _ = ask(node, "POST", "/access/groups", body, cookie)
    assert (status, reason) == (401, "Permission denied - invalid csrf token")
    assert ask(node, "POST", "/access/groups", body, admin.headers)[0] == 200
    token = {"Authorization": f"PVEAPIToken={admin.token}"}
    assert ask(node, "DELETE", "/access/groups/csrf", None, token)[0] == 200


def test_bodies(node, admin):
    """Form without a content type, form, JSON; the query wins over the body."""
    form, as_json = "application/x-www-form-urlencoded", "application/json"
    for kind, body in (
        (None, "groupid=b1&comment=x"),
        (form, "groupid=b2"),
        (as_json, '{"groupid":"b3","comment":"é"}'),
    ):
        headers = {**admin.headers, **({"Content-Type": kind} if kind else {})}
        assert ask(node, "POST", "/access/groups", body.encode(), headers)[0] == 200
    assert ask(node, "POST", "/access/groups?groupid=b4&_dc=123", "groupid=b1", admin.headers)[0] == 200
    rows = ask(node, "GET", "/access/groups?_dc=1", headers=admin.headers)[2]["data"]
    assert {r["groupid"]: r.get("comment") for r in rows if r["groupid"].startswith("b")} == {
        "b1": "x", "b2": None, "b3": "é", "b4": None,
    }  # fmt: skip


def test_paths(node, admin):
    """Repeated slashes; the path's parameter again in the query: the same value is fine, another is not."""
    assert ask(node, "GET", "//nodes///n1//version", headers=admin.headers)[0] == 200
    assert ask(node, "GET", "/nodes/n1/version?node=n1", headers=admin.headers)[0] == 200
    status, reason, body, _ = ask(node, "GET", "/nodes/n1/version?node=n2", headers=admin.headers)
    assert (status, reason) == (400, "Parameter verification failed.")
    assert "duplicate parameter" in body["errors"]["node"]


def test_upid_raw_and_encoded(node, admin):
    upid = node.must("POST", "/nodes/n1/panal/noop")
    for spelled in (upid, quote(upid, safe="")):
        assert ask(node, "GET", f"/nodes/n1/tasks/{spelled}/status", headers=admin.headers)[2]["data"]["upid"] == upid


def test_all_wrong_parameters_at_once(node, admin):
    """Exactly PVE's words."""
    body = "vmid=abc&memory=64&cores=0&nonsense=1&onboot=maybe&ostype=beos&name=a_b"
    status, reason, answer, _ = ask(node, "POST", "/nodes/n1/qemu", body, admin.headers)
    assert (status, reason) == (400, "Parameter verification failed.")
    errors = answer["errors"]
    assert errors["vmid"] == "type check ('integer') failed - got 'abc'"
    assert errors["cores"] == "value must have a minimum value of 1"
    assert errors["nonsense"].startswith("property is not defined in schema")
    assert errors["onboot"] == "type check ('boolean') failed - got 'maybe'"
    assert errors["ostype"].startswith("value 'beos' does not have a value in the enumeration")


def test_gzip_on_request(node, admin):
    _, _, plain, headers = ask(node, "GET", "/access/roles", headers=admin.headers)
    assert headers["Content-Encoding"] is None and headers["Vary"] == "accept-encoding"
    _, _, packed, headers = ask(node, "GET", "/access/roles", headers={**admin.headers, "Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip" and packed == plain


def test_unchanged_is_304(node, admin):
    status, _, _, headers = ask(node, "GET", "/cluster/resources", headers=admin.headers)
    assert status == 200 and headers["ETag"]
    again = {**admin.headers, "If-None-Match": headers["ETag"]}
    statuses = {ask(node, "GET", "/cluster/resources", headers=again)[0] for _ in range(5)}
    assert 304 in statuses


def test_idempotency_key(node, admin):
    """The same key gives the same answer, also after a restart of paneld; other parameters are refused; users are apart."""
    headers = {**admin.headers, "Idempotency-Key": "k-1"}
    first = ask(node, "POST", "/nodes/n1/panal/noop", "", headers)[2]["data"]
    assert ask(node, "POST", "/nodes/n1/panal/noop", "", headers)[2]["data"] == first
    node.restart_daemon()
    assert ask(node, "POST", "/nodes/n1/panal/noop", "", headers)[2]["data"] == first
    assert ask(node, "POST", "/nodes/n1/panal/noop", "", admin.headers)[2]["data"] != first
    token = {"Authorization": f"PVEAPIToken={admin.token}", "Idempotency-Key": "k-1"}
    assert ask(node, "POST", "/nodes/n1/panal/noop", "", token)[2]["data"] != first
    status, _, body, _ = ask(node, "POST", "/nodes/n1/panal/noop?node=n1", "", headers)
    assert status == 400 and "Idempotency-Key" in body["errors"]


def test_paneld_away_is_503_and_comes_back(node, admin):
    node.kill_daemon()
    status, reason, _, headers = ask(node, "GET", "/version", headers=admin.headers)
    assert status == 503 and "paneld" in reason and headers["Retry-After"]
    node.start_daemon()
    assert ask(node, "GET", "/version", headers=admin.headers)[0] == 200


def test_slow_callers_do_not_block_others(node, admin):
    """A held 401 and a connection that says nothing take nobody's time."""
    silent = [connection(node) for _ in range(5)]
    for conn in silent:
        conn.connect()
    refused = connection(node)
    refused.request("GET", "/api2/json/version")
    assert ask(node, "GET", "/version", headers=admin.headers)[0] == 200
    refused.sock.settimeout(0)
    with pytest.raises(ssl.SSLWantReadError):  # the refused caller still waits: nobody waited for him
        refused.sock.recv(1)
    refused.sock.settimeout(30)
    assert refused.getresponse().status == 401
    for conn in (*silent, refused):
        conn.close()


def test_proxmoxer(node, admin):
    """The PyPI client: login by password, a list, an error whose text is the reason phrase."""
    ca = str(node.run / "tls" / "ca.pem")
    client = ProxmoxAPI("127.0.0.1", port=node.port, user=admin.user, password=PASSWORD, verify_ssl=ca)
    assert client.version.get()["release"] == "9.1"
    assert [n["node"] for n in client.nodes.get()] == ["n1"]
    with pytest.raises(ResourceException) as caught:
        client.nodes("n1").qemu(999).config.get()
    assert caught.value.status_code in (403, 500)
    assert "999" in str(caught.value)
    user, _, rest = admin.token.partition("!")
    name, _, value = rest.partition("=")
    by_token = ProxmoxAPI("127.0.0.1", port=node.port, user=user, token_name=name, token_value=value, verify_ssl=ca)
    assert by_token.cluster.nextid.get()


def test_audit_and_no_secrets_in_logs(node, admin):
    """Rows 11 (secrets) and 20: the password, the ticket and the token's secret are in no log of ours."""
    node.must("POST", "/access/users", userid="log@pve", password="canary-password-1")
    secret = admin.token.partition("=")[2]
    ask(node, "GET", f"/version?x={secret}", headers={"Authorization": f"PVEAPIToken={admin.token}"})
    audit = "".join(p.read_text() for p in (node.state / "audit").iterdir())
    assert "POST /access/users" in audit and "admin@pve" in audit
    for canary in ("canary-password-1", PASSWORD, secret, admin.ticket):
        assert canary not in audit and canary not in node.log()


def test_what_is_kept_for_an_idempotency_key_is_no_help_in_guessing_a_password(node, admin):
    """Invariant 11, attack row 20. Planted fault, as found: a plain SHA-256 of the body."""
    body = "userid=kept%40pve&password=canary-4711-word"
    headers = {**admin.headers, "Idempotency-Key": "k-canary"}
    assert ask(node, "POST", "/access/users", body, headers)[0] == 200
    assert ask(node, "POST", "/access/users", body, headers)[0] == 200, "the first answer again"
    sent = json.dumps({"userid": "kept@pve", "password": "canary-4711-word"}, separators=(",", ":")).encode()
    kept = b"".join(path.read_bytes() for path in node.state.glob("idempotency.db*"))
    assert b"k-canary" in kept and b"canary-4711" not in kept
    assert hashlib.sha256(sent).digest() not in kept
