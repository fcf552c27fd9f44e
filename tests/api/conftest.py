"""One real node (fake hypervisor) per test module: `node`; `admin` is a logged-in administrator's headers and cookies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from tests.daemon_under_test import NodeUnderTest

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Login:
    """What a client keeps after POST /access/ticket, and an API token of the same user with all his rights."""

    user: str
    ticket: str
    csrf: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Cookie": f"PVEAuthCookie={quote(self.ticket, safe='')}", "CSRFPreventionToken": self.csrf}


@pytest.fixture(scope="module")
def node() -> Iterator[NodeUnderTest]:
    with NodeUnderTest() as running:
        yield running


@pytest.fixture(scope="module")
def admin(node: NodeUnderTest) -> Login:
    user = "admin@pve"
    node.must("POST", "/access/users", userid=user, password=PASSWORD)
    node.must("PUT", "/access/acl", path="/", users=user, roles="Administrator")
    made = node.must("POST", f"/access/users/{user}/token/test", privsep=0)
    data = node.http("POST", "/access/ticket", data={"username": user, "password": PASSWORD}).json()["data"]
    return Login(user, data["ticket"], data["CSRFPreventionToken"], f"{made['full-tokenid']}={made['value']}")
