"""Several clients at once (invariants 5 and 6): nobody's change is lost, no number is given twice."""

from __future__ import annotations

from tests.daemon_under_test import NodeUnderTest
from tests.storm import assert_whole, done, ended, records, together

KEYS = ("name", "description", "cores", "memory", "cpulimit", "cpuunits", "tags", "shares")


def test_changes_without_digest_lose_no_key(node: NodeUnderTest, soak) -> None:
    """Planted fault: `configure` that takes no turn and writes back what its plan was made from."""
    done(node, "POST", "/nodes/n1/qemu", vmid=500)
    path = "/nodes/n1/qemu/500/config"
    rounds = soak("rounds of 8 clients that change one configuration without digest: keys lost", small=3, big=300)
    for number in range(rounds):
        value = {"name": f"n{number}", "description": f"d{number}", "tags": f"t{number}"}
        wanted = {key: value.get(key, str(100 + number)) for key in KEYS}
        wanted |= {"cores": str(1 + number % 100), "cpulimit": str(1 + number % 100)}

        def change(key: str, to: str) -> None:
            node.must("PUT", path, **{key: to})

        together(*(lambda k=key, v=text: change(k, v) for key, text in wanted.items()))
        have = node.must("GET", path)
        assert {key: str(have[key]).strip() for key in KEYS} == wanted
    done(node, "DELETE", "/nodes/n1/qemu/500")


def test_clones_with_nextid_get_numbers_of_their_own(node: NodeUnderTest, soak) -> None:
    """Planted fault: `nextid` that reserves nothing."""
    done(node, "POST", "/nodes/n1/qemu", vmid=600, scsi0="local:1")
    rounds = soak(
        "rounds of 5 clients that make 10 clones each with nextid: errors, numbers given twice", small=1, big=15
    )
    each = 10 if rounds > 1 else 2
    for _ in range(rounds):
        ids: list[int] = []

        def client(ids: list[int] = ids) -> None:
            for _ in range(each):
                vmid = int(node.must("GET", "/cluster/nextid"))
                ids.append(vmid)
                done(node, "POST", "/nodes/n1/qemu/600/clone", newid=vmid, full=1)

        together(*[client] * 5)
        assert len(set(ids)) == len(ids) == 5 * each
        assert {row["vmid"] for row in node.must("GET", "/nodes/n1/qemu")} == {600, *ids}
        assert_whole(node)
        upids = [node.must("DELETE", f"/nodes/n1/qemu/{vmid}") for vmid in ids]
        assert {ended(node, upid) for upid in upids} == {"OK"}
    done(node, "DELETE", "/nodes/n1/qemu/600")
    assert not records(node, "guest/6")
