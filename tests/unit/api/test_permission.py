"""Permission forms that no method of the table has today: what the generated matrix cannot see."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from panal.api.permission import RootOnly
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
