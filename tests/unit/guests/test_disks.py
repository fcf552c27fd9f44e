"""What is said about drives that cannot be made."""

from __future__ import annotations

import pytest

from panal.core.errors import BadInput, Unavailable
from panal.guests.create import create
from tests.unit.guests.world import USER, World


async def test_the_field_is_named_by_the_error_not_by_its_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients show `field: sentence`. Planted fault: the sentence began with the field, too (`scsi0: scsi0: …`)."""

    async def gone(*args: object) -> None:
        raise Unavailable("its directory is not mounted")

    async with world.boot() as node:
        monkeypatch.setattr(world.storages.drivers["local"], "list", gone)
        for value in ("local:1", "local:0", "local:1,media=cdrom"):
            with pytest.raises(BadInput) as caught:
                await create(node.guests, 100, {"scsi0": value}, USER)
            assert caught.value.field == "scsi0" and not str(caught.value).startswith("scsi0"), value
