"""Shutting down by the power button: pressed again until the guest hears it, never longer than the time given."""

from __future__ import annotations

from panal.core.clock import Clock
from panal.core.errors import Unavailable
from panal.guests import claims, shutdown
from panal.guests.create import create
from panal.guests.start import start
from tests.unit.guests.world import USER, Node, World


class Quick:
    """A clock on which whoever waits is there at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self.now_s = clock, clock.monotonic_s()

    def wall_s(self) -> float:
        return self._clock.wall_s()

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await self._clock.sleep(0)


class Button:
    """The driver's button: the guest hears it from press number `heard` on."""

    def __init__(self, node: Node, heard: int) -> None:
        self.clock = Quick(node.guests.clock)
        self.presses_s: list[float] = []
        self._node, self._heard = node, heard
        self._begin_s, self._press = self.clock.monotonic_s(), node.driver.shutdown
        node.guests.clock = node.driver._clock = self.clock
        node.driver.shutdown = self.press  # type: ignore[method-assign]

    async def press(self, vmid: int) -> None:
        self.presses_s.append(self.clock.monotonic_s() - self._begin_s)
        self._node.driver.machine.guests[vmid].acpi = len(self.presses_s) >= self._heard
        await self._press(vmid)


async def running(node: Node) -> None:
    await node.ok(await create(node.guests, 100, {}, USER))
    await node.ok(await start(node.guests, 100, USER))


async def test_a_guest_that_does_not_hear_the_first_press_goes_off(world: World) -> None:
    """Planted fault: one press, as before: the whole time passes and the task fails."""
    async with world.boot() as node:
        await running(node)
        button = Button(node, heard=3)
        await node.ok(await shutdown.shutdown(node.guests, 100, USER, timeout_s=60))
        assert [round(at_s) for at_s in button.presses_s] == [0, 5, 10]
        assert claims.read(node.guests.store, 100).free


async def test_a_deaf_guest_is_waited_for_no_longer_than_asked(world: World) -> None:
    async with world.boot() as node:
        await running(node)
        button = Button(node, heard=1000)
        assert "within 12 s" in await node.ended(await shutdown.shutdown(node.guests, 100, USER, timeout_s=12))
        assert 12 <= button.clock.monotonic_s() - button._begin_s < 13
        assert len(button.presses_s) == 3 and 100 in world.machine.guests


async def test_a_press_into_a_process_that_is_ending_is_no_failure(world: World) -> None:
    """Planted fault: the error of a later press ends the task while the guest is going off."""
    async with world.boot() as node:
        await running(node)
        button = Button(node, heard=1000)
        press = button.press

        async def lost(vmid: int) -> None:
            await press(vmid)
            if len(button.presses_s) == 2:
                node.driver._gone(vmid, "stopped")
                raise Unavailable("the connection to QEMU was lost during system_powerdown")

        node.driver.shutdown = lost  # type: ignore[method-assign]
        await node.ok(await shutdown.shutdown(node.guests, 100, USER, timeout_s=60))
        assert len(button.presses_s) == 2
