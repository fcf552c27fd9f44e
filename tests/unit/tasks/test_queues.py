"""Work on one thing: one at a time, in order, bounded, and no place is lost when somebody gives up."""

from __future__ import annotations

import asyncio
import random

import pytest

from panal.core.errors import Busy
from panal.tasks.queues import Queues


async def test_first_come_first_served_and_one_at_a_time():
    queues = Queues()
    order: list[int] = []
    inside = 0

    async def work(number: int) -> None:
        nonlocal inside
        async with queues.turn("guest/100", f"w{number}"):
            inside += 1
            assert inside == 1
            assert queues.holder("guest/100") == f"w{number}"
            await asyncio.sleep(0)
            order.append(number)
            inside -= 1

    await asyncio.gather(*(work(n) for n in range(20)))
    assert order == list(range(20))
    assert queues.holder("guest/100") is None


async def test_other_names_do_not_wait():
    queues = Queues()
    async with queues.turn("a", "x"), asyncio.timeout(1), queues.turn("b", "x"):
        pass


async def test_who_waits_is_told_for_whom():
    queues = Queues()
    told: list[str] = []
    async with queues.turn("a", "first"):
        waiter = asyncio.create_task(_hold(queues, "second", told.append))
        await asyncio.sleep(0)
        assert told == ["first"]
    await waiter


async def _hold(queues: Queues, who: str, waiting=None, timeout_s: float | None = None) -> None:
    async with queues.turn("a", who, waiting, timeout_s):
        await asyncio.sleep(0)


async def test_full_and_late_are_busy():
    queues = Queues(max_waiting=1)
    async with queues.turn("a", "first"):
        waiter = asyncio.create_task(_hold(queues, "second"))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="1 others wait"):
            await _hold(queues, "third")
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        with pytest.raises(Busy, match="busy with first"):
            await _hold(queues, "fourth", timeout_s=0.01)
    await _hold(queues, "fifth", timeout_s=0.01)


@pytest.mark.parametrize("seed", range(20))
async def test_random_cancellation_never_loses_the_place(seed):
    """Planted fault: without passing the turn on in `_enter`'s except branch the last worker waits for ever."""
    queues = Queues(max_waiting=200)
    dice = random.Random(seed)
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with queues.turn("a", "w"):
            inside += 1
            assert inside == 1
            try:
                for _ in range(dice.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                inside -= 1

    workers = []
    for _ in range(60):
        workers.append(asyncio.create_task(work()))
        if dice.random() < 0.5:
            await asyncio.sleep(0)
        if dice.random() < 0.5:
            dice.choice(workers).cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    async with asyncio.timeout(5), queues.turn("a", "last"):
        pass
    assert queues._waiting == {} and queues._holders == {}
