"""Operations end whole or not at all, whatever happens between any two steps: in this process, and with the process killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from panal.tasks.index import StepJournal
from panal.tasks.steps import Entry, Step, recover, run

NAMES = ("one", "two", "three", "four")
POINT = 3


class Crash(BaseException):
    """The process is gone: nothing after this runs."""


class MemoryJournal:
    """A journal which can die at its n-th call, before or after writing."""

    def __init__(self, die_at: int | None = None, after: bool = False) -> None:
        self.rows: dict[str, Entry] = {}
        self.calls = 0
        self.die_at, self.after = die_at, after
        self.dead = False

    def _call(self, write) -> None:
        if self.dead:
            raise Crash
        self.calls += 1
        if self.calls == self.die_at:
            self.dead = True
            if self.after:
                write()
            raise Crash
        write()

    def alive(self) -> bool:
        return not self.dead

    async def open(self, upid, kind, args) -> None:
        self._call(lambda: self.rows.update({upid: Entry(upid, kind, args, 0, False)}))

    async def mark(self, upid, begun, committed) -> None:
        self._call(lambda: self.rows.update({upid: Entry(upid, "k", self.rows[upid].args, begun, committed)}))

    async def close(self, upid) -> None:
        self._call(lambda: self.rows.pop(upid, None))

    async def entries(self) -> list[Entry]:
        return list(self.rows.values())


class World:
    """What steps change: a set of things on disk. `seen` counts so that a test knows what ran."""

    def __init__(self, directory: Path, alive=lambda: True) -> None:
        self.directory, self.alive = directory, alive
        self.fail: str | None = None

    def steps(self, point: int | None = POINT) -> list[Step]:
        return [
            Step(name, lambda n=name: self._do(n), lambda n=name: self._undo(n), point_of_no_return=i == point)  # type: ignore[misc]
            for i, name in enumerate(NAMES, start=1)
        ]

    async def _do(self, name: str) -> None:
        if not self.alive():
            raise Crash
        if name == self.fail:
            (self.directory / f"{name}.half").touch()
            raise RuntimeError(f"{name} failed")
        (self.directory / name).touch()

    async def _undo(self, name: str) -> None:
        if not self.alive():
            raise Crash
        (self.directory / name).unlink(missing_ok=True)
        (self.directory / f"{name}.half").unlink(missing_ok=True)

    @property
    def things(self) -> set[str]:
        return {p.name for p in self.directory.iterdir()}


def quiet(*_: object) -> None:
    pass


@pytest.mark.parametrize("point", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("die_at", range(1, 9))
async def test_a_crash_at_any_journal_write_ends_whole_or_not_at_all(tmp_path, die_at, after, point):
    """Planted fault: redoing `steps[entry.begun:]` on recovery skips the step which was running when the process died."""
    journal = MemoryJournal(die_at, after)
    world = World(tmp_path, lambda: not journal.dead)
    try:
        await run(journal, "k", "u", {}, world.steps(point), quiet)
    except Crash:
        pass
    else:
        assert not journal.dead
    revived = MemoryJournal()
    revived.rows = journal.rows
    again = World(tmp_path)
    await recover(revived, {"k": lambda _: again.steps(point)}, quiet)
    assert again.things in (set(), set(NAMES))
    assert revived.rows == {}


RANDOM = "operations that crash at random, again while recovering: neither whole nor undone"


async def test_crashes_at_random_also_while_recovering(tmp_path, soak):
    """As above, with the recovery itself dying a few times. Planted fault: `recover` that closes before the undos."""
    chance = random.Random(4)
    for number in range(soak(RANDOM, small=40, big=8000)):
        (tmp_path / str(number)).mkdir()
        await crash_at_random(tmp_path / str(number), chance)


async def crash_at_random(directory: Path, chance: random.Random) -> None:
    """One operation, with up to three crashes."""
    point = chance.choice([None, 1, 2, 3, 4])
    journal = MemoryJournal(chance.randint(1, 10), chance.random() < 0.5)
    world = World(directory, lambda: not journal.dead)
    if chance.random() < 0.3:
        world.fail = chance.choice(NAMES[: point or 4])
    with suppress(Crash, RuntimeError):
        await run(journal, "k", "u", {}, world.steps(point), quiet)
    for again in [MemoryJournal(n, chance.random() < 0.5) for n in (1, 2)[: chance.randint(0, 2)]] + [MemoryJournal()]:
        again.rows = journal.rows
        alive = World(directory, partial(MemoryJournal.alive, again))
        with suppress(Crash):
            await recover(again, {"k": partial(steps_of, alive, point)}, quiet)
    assert {name.removesuffix(".half") for name in world.things} in (set(), set(NAMES))
    assert journal.rows == {}


def steps_of(world: World, point: int | None, _: object) -> list[Step]:
    """A builder."""
    return world.steps(point)


@pytest.mark.parametrize("name", NAMES[:POINT])
async def test_a_failure_before_the_point_undoes_everything(tmp_path, name):
    journal, world = MemoryJournal(), World(tmp_path)
    world.fail = name
    with pytest.raises(RuntimeError, match=name):
        await run(journal, "k", "u", {}, world.steps(), quiet)
    assert world.things == set() and journal.rows == {}


async def test_a_failure_after_the_point_is_kept_and_finished_at_the_next_start(tmp_path):
    journal, world = MemoryJournal(), World(tmp_path)
    lines: list[Any] = []
    world.fail = "four"
    with pytest.raises(RuntimeError, match="four"):
        await run(journal, "k", "u", {}, world.steps(), lines.append)
    assert world.things == {"one", "two", "three", "four.half"}
    assert any("next start" in line for line in lines)
    world.fail = None
    await recover(journal, {"k": lambda _: world.steps()}, quiet)
    assert set(NAMES) <= world.things and journal.rows == {}


@pytest.mark.parametrize("name", NAMES)
async def test_a_stop_undoes_before_the_point_and_finishes_after_it(tmp_path, name):
    journal, world = MemoryJournal(), World(tmp_path)
    reached, go_on = asyncio.Event(), asyncio.Event()

    def slow(step: Step) -> Step:
        async def do() -> None:
            reached.set()
            await go_on.wait()
            await step.do()

        return Step(step.name, do, step.undo, step.point_of_no_return)

    steps = [slow(s) if s.name == name else s for s in world.steps()]
    running = asyncio.create_task(run(journal, "k", "u", {}, steps, quiet))
    await reached.wait()
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    go_on.set()
    await asyncio.gather(running, return_exceptions=True)
    assert journal.rows == {}
    assert world.things == (set(NAMES) if name == "four" else set())
    assert running.cancelled() == (name != "four")


async def test_an_undo_that_fails_does_not_stop_the_others(tmp_path):
    journal, world = MemoryJournal(), World(tmp_path)
    lines: list[Any] = []
    steps = world.steps()

    async def broken() -> None:
        raise OSError("no")

    steps[1] = Step("two", steps[1].do, broken)
    world.fail = "three"
    with pytest.raises(RuntimeError):
        await run(journal, "k", "u", {}, steps, lines.append)
    assert world.things == {"two"}
    assert lines[0] == "undo of 'two' failed: no" and "next start" in lines[1]
    await recover(journal, {"k": lambda args: world.steps()}, lambda entry, line: None)
    assert not world.things and not journal.rows


async def test_a_step_that_did_nothing_is_never_undone(tmp_path):
    """Not after a crash either. Planted fault: without the journal's mark the next start removes somebody else's thing."""
    journal, world = MemoryJournal(), World(tmp_path)
    undone: list[str] = []

    async def taken() -> None:
        raise KeyError("somebody made it since the plan")

    async def undo() -> None:
        undone.append("two")

    async def die() -> None:
        journal.dead = True
        raise Crash

    def steps() -> list[Step]:
        one, _, *rest = world.steps()
        return [Step("one", one.do, die), Step("two", taken, undo, untouched=(KeyError,)), *rest]

    with pytest.raises(Crash):
        await run(journal, "k", "u", {}, steps(), lambda line: None)
    journal.dead = False
    await recover(journal, {"k": lambda args: [world.steps()[0], *steps()[1:]]}, lambda entry, line: None)
    assert undone == [] and not world.things and not journal.rows


async def test_one_operation_that_cannot_be_ended_does_not_stop_the_others(tmp_path):
    """Planted fault: building the steps outside of `try` in `recover` keeps the daemon from starting."""
    journal, world = MemoryJournal(), World(tmp_path)
    lines: list[Any] = []
    journal.rows = {
        "a": Entry("a", "unknown", {}, 1, False),
        "b": Entry("b", "k", {}, 2, False),
    }
    (tmp_path / "one").touch()
    found = await recover(journal, {"k": lambda _: world.steps()}, lambda e, line: lines.append((e.upid, line)))
    assert [e.upid for e in found] == ["a", "b"]
    assert world.things == set() and list(journal.rows) == ["a"]
    assert ("b", "undid what was begun") in lines


CHILD = """
import asyncio, os, sys
from pathlib import Path
from panal.tasks.index import StepJournal
from panal.tasks.steps import run
from tests.unit.tasks.test_steps import World

async def main():
    world = World(Path(sys.argv[2]))
    steps = world.steps()
    kill, after = int(sys.argv[3]), sys.argv[4] == "after"
    do = steps[kill].do
    async def die():
        if after:
            await do()
        os._exit(9)
    steps[kill] = type(steps[kill])(steps[kill].name, die, steps[kill].undo, steps[kill].point_of_no_return)
    await run(StepJournal(Path(sys.argv[1])), "k", "u", {"a": 1}, steps, print)

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kill", range(4))
async def test_a_killed_process_leaves_nothing_half_done(tmp_path, kill, when):
    things = tmp_path / "things"
    things.mkdir()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path / "j.db"), str(things), str(kill), when,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert await child.wait() == 9
    journal, world = StepJournal(tmp_path / "j.db"), World(things)
    (found,) = await recover(journal, {"k": lambda _: world.steps()}, quiet)
    assert found.args == {"a": 1}
    assert world.things == (set(NAMES) if kill >= POINT else set())
    assert await journal.entries() == []
    journal.shut()
