"""Volume names are handed out once, whoever asks at the same time."""

import asyncio

MIB = 1024 * 1024


async def test_fifty_at_once_get_fifty_names(storages, driver):
    """Planted fault: without the reservation, calls that list at the same moment choose the same number."""

    async def one():
        name = await storages.free_name("s1", 100, "raw")
        await asyncio.sleep(0)
        await driver.allocate(100, name, "raw", MIB)
        storages.release("s1", name)
        return name

    names = await asyncio.gather(*(one() for _ in range(50)))
    assert len(set(names)) == 50 and len(await driver.list("images", 100)) == 50


async def test_a_number_is_free_in_every_format(storages, driver):
    assert await storages.free_name("s1", 100, "raw") == driver.image_name(100, "vm-100-disk-0", "raw")
    assert await storages.free_name("s1", 100, "qcow2") == driver.image_name(100, "vm-100-disk-1", "qcow2")
    storages.release("s1", driver.image_name(100, "vm-100-disk-0", "raw"))
    taken = [driver.image_name(100, "vm-100-disk-0", "raw")]
    assert await storages.free_name("s1", 100, "raw", taken=taken) == driver.image_name(100, "vm-100-disk-2", "raw")
