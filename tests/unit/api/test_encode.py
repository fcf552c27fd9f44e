"""Long answers: the same bytes, and others get their turn while they are made."""

from __future__ import annotations

import asyncio

import msgspec

from panal.api.wire import encode


async def test_a_long_list_is_encoded_in_slices() -> None:
    """Planted fault: no turn for others between two slices."""
    rows = [{"vmid": n, "template": n % 2 == 0, "name": f"vm<{n}>"} for n in range(3 * encode.SLICE_ROWS + 1)]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    found = await encode.sliced(rows)
    task.cancel()
    assert turns >= 3
    assert encode.success("json", found, {}, None) == encode.success("json", rows, {}, None)
    assert msgspec.json.decode(found.data)[2] == {"vmid": 2, "template": 1, "name": "vm<2>"}


async def test_any_length() -> None:
    for count in (0, 1, encode.SLICE_ROWS, encode.SLICE_ROWS + 1):
        assert msgspec.json.decode((await encode.sliced(list(range(count)))).data) == list(range(count))
