"""What of an operation's steps can be told from outside: their order, what is done again, what a stop may cut short.

Beside `test_steps.py`, which walks every crash; each of these sees a fault that the walk forgives (`tests/unit/mutants`).
"""

from __future__ import annotations

import asyncio

import pytest

from panal.tasks.steps import Entry, Step, recover, run
from tests.unit.tasks.test_steps import NAMES, POINT, Crash, MemoryJournal, World, quiet


class Watched:
    """Four steps that note what is asked of them."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.broken: str | None = None

    def steps(self, point: int | None = POINT) -> list[Step]:
        return [
            Step(n, lambda n=n: self._note(n), lambda n=n: self._note(f"-{n}"), point_of_no_return=i == point)  # type: ignore[misc]
            for i, n in enumerate(NAMES, start=1)
        ]

    async def _note(self, name: str) -> None:
        self.seen.append(name)
        if name == self.broken:
            raise RuntimeError(name)


async def test_undone_in_reverse() -> None:
    watched = Watched()
    watched.broken = "three"
    with pytest.raises(RuntimeError):
        await run(MemoryJournal(), "k", "u", {}, watched.steps(), quiet)
    assert watched.seen == ["one", "two", "three", "-three", "-two", "-one"]


async def test_without_a_point_the_last_step_is_it() -> None:
    watched = Watched()
    watched.broken = "four"
    with pytest.raises(RuntimeError):
        await run(MemoryJournal(), "k", "u", {}, watched.steps(None), quiet)
    assert watched.seen == [*NAMES, "-four", "-three", "-two", "-one"]


@pytest.mark.parametrize(("begun", "again"), [(3, ["four"]), (4, ["four"])])
async def test_what_is_past_the_point_is_not_done_again(begun: int, again: list[str]) -> None:
    watched, journal = Watched(), MemoryJournal()
    journal.rows = {"u": Entry("u", "k", {}, begun, True)}
    await recover(journal, {"k": lambda _: watched.steps()}, quiet)
    assert watched.seen == again and not journal.rows


async def test_the_point_is_noted_before_the_end() -> None:
    """The last step succeeded, the process dies before the row is gone: what was done stays."""

    class Dies(MemoryJournal):
        async def close(self, upid) -> None:
            raise Crash

    journal, watched = Dies(), Watched()
    with pytest.raises(Crash):
        await run(journal, "k", "u", {}, watched.steps(None), quiet)
    assert journal.rows["u"].committed


async def test_an_undo_that_fails_at_recovery_is_tried_at_the_next_one() -> None:
    watched, journal = Watched(), MemoryJournal()
    watched.broken = "-one"
    journal.rows = {"u": Entry("u", "k", {}, 2, False)}
    await recover(journal, {"k": lambda _: watched.steps()}, quiet)
    assert list(journal.rows) == ["u"]
    watched.broken = None
    await recover(journal, {"k": lambda _: watched.steps()}, quiet)
    assert watched.seen == ["-two", "-one"] * 2 and not journal.rows


async def test_a_stop_does_not_cut_an_undo_short(tmp_path) -> None:
    world, journal = World(tmp_path), MemoryJournal()
    steps, undoing, go_on = world.steps(), asyncio.Event(), asyncio.Event()
    undo = steps[1].undo
    assert undo is not None

    async def slow() -> None:
        undoing.set()
        await go_on.wait()
        await undo()

    steps[1] = Step("two", steps[1].do, slow)
    world.fail = "three"
    running = asyncio.create_task(run(journal, "k", "u", {}, steps, quiet))
    await undoing.wait()
    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(running, return_exceptions=True)
    assert world.things == set() and not journal.rows
