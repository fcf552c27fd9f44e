"""Attack row 16: reading writes nothing, for nobody, not even for root; and no reader takes a path of the host."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from panal.api.all_routes import table
from tests.api.in_process import Desk, desk, samples

READERS = [m for m in table().methods if m.verb == "GET"]
PATHS = ("/etc/passwd", "../../../../etc/passwd", "file:///etc/passwd", "local:../../../../etc/passwd")
# Its answer is a reservation for a minute (vmid/…): that is what it is for.
RESERVES = "/cluster/nextid"


def _state(d: Desk) -> dict[str, Any]:
    stored = {i.key: i.revision for i in d.services.store.list("") if not i.key.startswith("vmid/")}
    files = {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in d.services.state.rglob("*")
        if p.is_file() and ".db" not in p.name
    }
    return {**stored, **files, "tasks": d.services.tasks.running}


async def test_reading_changes_nothing() -> None:
    """Every GET as root, with and without its optional parameters. Planted fault: a list that writes what it found."""
    async with desk() as d:
        made = await d.must("POST", "/nodes/n1/qemu", vmid=100, scsi0="local:0.01")
        assert (await d.services.tasks.wait(made, 60)).status == "OK"
        for method in READERS:
            before = _state(d)
            await d.call(method, samples(method), local=True)
            after = _state(d)
            assert after == before, (method.path, set(after.items()) ^ set(before.items()))


@pytest.mark.parametrize("payload", PATHS)
async def test_no_reader_shows_a_file_of_the_host(payload: str) -> None:
    """In every text parameter, also those in the path. Planted fault: `read_volume` that opens what it is given."""
    async with desk() as d:
        for method in READERS:
            texts = [p.name for p in method.params if p.type == "string" and p.name != "node"]
            for name in texts:
                _, _, body = await d.call(method, {**samples(method), name: payload}, local=True)
                assert "root:x:0:0" not in str(body), (method.path, name)
