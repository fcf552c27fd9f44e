"""File systems quiet through the guest's agent: what is asked, and what a hostile or absent agent costs."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from panal.guests.config.read import Agent
from panal.guests.drivers.qemu import agent
from panal.guests.drivers.qemu.agent import frozen

ON = Agent(True)


class Inside:
    """An agent. `answer` makes something else than it should of a command's answer; None keeps silent."""

    def __init__(self, door: Path) -> None:
        self.door = door
        self.asked: list[str] = []
        self.answers: dict[str, bytes | None] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"return": 7}\n')  # an answer nobody waits for any more
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                question = json.loads((await reader.readuntil(b"\n")).lstrip(b"\xff"))
                name = question["execute"]
                if name == "guest-sync-delimited" and name not in self.answers:
                    writer.write(b"\xff" + json.dumps({"return": question["arguments"]["id"]}).encode() + b"\n")
                    continue
                self.asked.append(name.removeprefix("guest-fsfreeze-"))
                answer = self.answers.get(name, b'{"return": 2}\n')
                if answer is not None:
                    writer.write(answer)
        writer.close()


@pytest.fixture
async def inside(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Inside]:
    monkeypatch.setattr(agent, "FREEZE_S", 0.3)
    monkeypatch.setattr(agent, "THAW_S", 0.3)
    directory = Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp"))
    made = Inside(directory / "agent")
    server = await asyncio.start_unix_server(made.serve, made.door)
    yield made
    server.close()
    shutil.rmtree(directory)


async def test_frozen_inside_the_block_and_thawed_after(inside: Inside) -> None:
    async with frozen(inside.door, ON) as done:
        assert done
        assert inside.asked == ["freeze"]
    assert inside.asked == ["freeze", "thaw"]


async def test_thawed_when_the_block_fails(inside: Inside) -> None:
    """Planted fault: thaw outside of `finally`."""
    with pytest.raises(KeyError):
        async with frozen(inside.door, ON):
            raise KeyError
    assert inside.asked == ["freeze", "thaw"]


@pytest.mark.parametrize("wanted", [Agent(False), Agent(True, freeze_fs=False)])
async def test_not_asked_when_not_wanted(inside: Inside, wanted: Agent) -> None:
    async with frozen(inside.door, wanted) as done:
        assert not done
    assert not inside.asked


@pytest.mark.parametrize(
    "answer",
    [None, b'{"error": {"class": "CommandNotFound"}}\n', b"nonsense\n", b"[]\n", b"[" * 50_000 + b"\n", b"x" * 200_000,
     b'{"return": "many"}\n'],
)  # fmt: skip
async def test_what_did_not_say_that_it_is_frozen_is_thawed_all_the_same(inside: Inside, answer: bytes | None) -> None:
    """Planted fault: thawing only what answered leaves a slow guest frozen for ever."""
    inside.answers["guest-fsfreeze-freeze"] = answer
    async with frozen(inside.door, ON) as done:
        assert not done
    assert inside.asked == ["freeze", "thaw"]


async def test_an_agent_that_is_not_there_costs_one_wait(inside: Inside) -> None:
    inside.answers["guest-sync-delimited"] = None
    async with frozen(inside.door, ON) as done:
        assert not done
    assert inside.asked == ["guest-sync-delimited"]
    async with frozen(inside.door.with_name("nobody"), ON) as done:
        assert not done


async def test_a_guest_that_a_dead_daemon_left_frozen_is_thawed(inside: Inside) -> None:
    """Planted fault: asking once, while the guest was still paused."""
    inside.answers["guest-fsfreeze-thaw"] = None
    asking = asyncio.create_task(agent.thaw(inside.door, ON))
    while not inside.asked:
        await asyncio.sleep(0.01)
    inside.answers.clear()
    await asyncio.wait_for(asking, 30)
    assert inside.asked == ["thaw", "thaw"]
    await agent.thaw(inside.door, Agent(False))
    assert inside.asked == ["thaw", "thaw"]


async def test_cancelled_while_it_waits_for_the_answer(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "FREEZE_S", 60)
    inside.answers["guest-fsfreeze-freeze"] = None

    async def hold() -> None:
        async with frozen(inside.door, ON):
            raise AssertionError("never frozen")

    task = asyncio.create_task(hold())
    while not inside.asked:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inside.asked == ["freeze", "thaw"]
