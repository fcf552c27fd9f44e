"""Every task that got a name ends, exactly once, and says the truth about its end."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from panal.core import redact
from panal.core.clock import SystemClock
from panal.core.errors import BadInput, Busy, Failed, NotFound
from panal.tasks import runner as runner_module
from panal.tasks.index import Filter, normalized
from panal.tasks.model import Task, Upid
from panal.tasks.runner import RESTARTED, STOPPED, Tasks
from panal.tasks.steps import Step


class Bench:
    def __init__(self, directory) -> None:
        self.errors: list[tuple[str, BaseException]] = []
        self.tasks = Tasks("n", directory, SystemClock(), lambda upid, error: self.errors.append((upid, error)))

    async def run(self, body, **rest) -> str | None:
        upid = await self.tasks.spawn("test", "100", "root@pam", body, **rest)
        return (await self.tasks.wait(upid, 10)).status

    async def lines(self, upid: str) -> list[str]:
        return [text for _, text in (await self.tasks.read_log(upid, 0, 0))[0]]


@pytest.fixture
async def bench(tmp_path):
    made = Bench(tmp_path)
    await made.tasks.start()
    yield made
    await made.tasks.close()


async def nothing(task: Task) -> None:
    task.log("did nothing")


async def forever(task: Task) -> None:
    await asyncio.Event().wait()


async def test_ok(bench):
    upid = await bench.tasks.spawn("qmstart", "100", "root@pam", nothing)
    record = await bench.tasks.wait(upid, 10)
    assert (record.status, record.running, Upid.parse(upid).id) == ("OK", False, "100")
    assert await bench.lines(upid) == ["did nothing", "TASK OK"]


async def test_warnings(bench):
    async def body(task: Task) -> None:
        task.warn("odd")

    upid = await bench.tasks.spawn("qmstart", "", "root@pam", body)
    assert (await bench.tasks.wait(upid, 10)).status == "WARNINGS: 1"
    assert await bench.lines(upid) == ["WARN: odd", "TASK WARNINGS: 1"]


async def test_an_error_of_ours_is_its_sentence_also_after_warnings(bench):
    async def body(task: Task) -> None:
        task.warn("odd")
        raise BadInput("size", "too\nbig")

    upid = await bench.tasks.spawn("qmstart", "", "root@pam", body)
    assert (await bench.tasks.wait(upid, 10)).status == "too big"
    assert (await bench.lines(upid))[-1] == "TASK ERROR: too big"
    assert bench.errors == []


async def test_a_fault_of_ours_is_told_to_the_edge_once_and_hides_secrets(bench):
    """Invariant 11. Planted fault: the status without `redact`."""

    async def body(task: Task) -> None:
        raise RuntimeError("with hunter3hunter3")

    redact.register("hunter3hunter3")
    try:
        upid = await bench.tasks.spawn("qmstart", "", "root@pam", body)
        status = (await bench.tasks.wait(upid, 10)).status
    finally:
        redact.unregister("hunter3hunter3")
    assert status == "internal error: RuntimeError: with ********"
    assert [u for u, _ in bench.errors] == [upid]


async def test_stop_while_it_runs(bench):
    upid = await bench.tasks.spawn("qmstart", "", "root@pam", forever)
    await asyncio.sleep(0.01)
    await bench.tasks.stop(upid)
    assert (await bench.tasks.wait(upid, 10)).status == STOPPED
    with pytest.raises(NotFound):
        await bench.tasks.stop(upid)


async def test_stop_before_it_began_still_ends_it(bench):
    """Planted fault: `running.cancel()` on a task that has not run yet: its end is never written."""
    upid = await bench.tasks.spawn("qmstart", "", "root@pam", forever)
    await bench.tasks.stop(upid)
    record = await bench.tasks.wait(upid, 10)
    assert record.status == STOPPED and bench.tasks.running == 0


async def test_a_spawn_that_is_cancelled_leaves_no_task_running(bench):
    spawning = asyncio.create_task(bench.tasks.spawn("qmstart", "", "root@pam", forever))
    await asyncio.sleep(0)
    spawning.cancel()
    await asyncio.gather(spawning, return_exceptions=True)
    assert bench.tasks.running == 0
    assert await bench.tasks.list(Filter(running=True)) == ([], 0)


async def test_work_on_one_guest_queues_and_says_for_whom(bench):
    gate = asyncio.Event()

    async def first(task: Task) -> None:
        await gate.wait()

    one = await bench.tasks.spawn("qmstart", "100", "root@pam", first, queue="guest/100")
    await asyncio.sleep(0.01)
    two = await bench.tasks.spawn("qmstop", "100", "root@pam", nothing, queue="guest/100")
    await asyncio.sleep(0.01)
    assert await bench.lines(two) == [f"waiting for {one}"]
    gate.set()
    assert (await bench.tasks.wait(two, 10)).status == "OK"


async def test_too_many_are_busy(bench, monkeypatch):
    monkeypatch.setattr(runner_module, "MAX_RUNNING", 1)
    await bench.tasks.spawn("qmstart", "", "root@pam", forever)
    with pytest.raises(Busy):
        await bench.tasks.spawn("qmstart", "", "root@pam", forever)


async def test_names_are_unique_within_a_second(bench):
    upids = await asyncio.gather(*(bench.tasks.spawn("t", "", "root@pam", nothing) for _ in range(50)))
    assert len(set(upids)) == 50


async def test_a_volume_id_as_subject(bench):
    upid = await bench.tasks.spawn("imgcopy", "local:100/vm-100-disk-0.raw", "root@pam", nothing)
    assert (await bench.tasks.wait(upid, 10)).status == "OK"
    assert Upid.parse(upid).id == "local\\x3a100\\x2fvm-100-disk-0.raw"
    assert (await bench.lines(upid))[-1] == "TASK OK"


async def test_closing_ends_what_runs_and_what_has_not_begun(tmp_path):
    bench = Bench(tmp_path)
    await bench.tasks.start()
    one = await bench.tasks.spawn("qmstart", "", "root@pam", forever)
    await asyncio.sleep(0.01)
    two = await bench.tasks.spawn("qmstart", "", "root@pam", forever)
    await bench.tasks.close()
    after = Bench(tmp_path)
    assert {(await after.tasks.get(u)).status for u in (one, two)} == {RESTARTED}
    await after.tasks.close()


async def test_filters_and_totals(bench):
    async def bad(task: Task) -> None:
        raise Failed("no")

    async def warned(task: Task) -> None:
        task.warn("x")

    for kind, user, body in [
        ("a", "u@pve", nothing),
        ("b", "u@pve!t", bad),
        ("a", "v@pve", warned),
        ("c", "uu@pve", nothing),
    ]:
        upid = await bench.tasks.spawn(kind, kind * 3, user, body)
        await bench.tasks.wait(upid, 10)

    async def kinds(want: Filter, start: int = 0, limit: int = 50) -> tuple[list[str], int]:
        records, total = await bench.tasks.list(want, start, limit)
        return [r.upid.type + ":" + r.upid.user for r in records], total

    assert (await kinds(Filter()))[1] == 4
    assert await kinds(Filter(owner="u@pve")) == (["b:u@pve!t", "a:u@pve"], 2)
    assert await kinds(Filter(user="u@pve")) == (["a:u@pve"], 1)
    assert await kinds(Filter(statuses=frozenset({"error"}))) == (["b:u@pve!t"], 1)
    assert (await kinds(Filter(statuses=frozenset({"ok"}))))[1] == 2
    assert await kinds(Filter(statuses=frozenset({"warning"}))) == (["a:v@pve"], 1)
    assert await kinds(Filter(statuses=frozenset())) == ([], 0)
    assert await kinds(Filter(id="aaa", type="a")) == (["a:v@pve", "a:u@pve"], 2)
    assert await kinds(Filter(), 1, 1) == (["a:v@pve"], 4)
    assert (await kinds(Filter(since=2e10)))[1] == 0


def test_classes_of_an_end():
    ends = ["OK", "WARNINGS: 2", "no", None, "unexpected status"]
    assert [normalized(x) for x in ends] == ["ok", "warning", "error", "unknown", "unknown"]


async def test_old_tasks_are_forgotten_with_their_logs(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(runner_module, "KEEP_TASKS", 2)
    for _ in range(5):
        assert await bench.run(nothing) == "OK"
    running = await bench.tasks.spawn("qmstart", "", "root@pam", forever)
    await bench.tasks.trim()
    records, total = await bench.tasks.list(Filter())
    assert total == 2 and records[0].running and str(records[0].upid) == running
    assert sum(p.is_file() for p in (tmp_path / "log").rglob("*")) == 2


CHILD = """
import asyncio, os, sys
from pathlib import Path
from panal.core.clock import SystemClock
from panal.tasks.runner import Tasks
from tests.unit.tasks.test_runner import steps_in

async def main():
    tasks = Tasks("n", Path(sys.argv[1]), SystemClock(), print)
    await tasks.start()
    kill = int(sys.argv[2])
    def build(args):
        steps = steps_in(Path(args["in"]))
        async def die():
            os._exit(9)
        steps[kill] = type(steps[kill])(steps[kill].name, die, steps[kill].undo, steps[kill].point_of_no_return)
        return steps
    tasks.register("k", build)
    async def body(task):
        task.log("begun")
        await tasks.operate(task, "k", {"in": sys.argv[1] + "/things"})
    await tasks.wait(await tasks.spawn("t", "100", "root@pam", body), 10)

asyncio.run(main())
"""


def steps_in(directory) -> list[Step]:
    directory.mkdir(exist_ok=True, parents=True)

    def step(name: str, point: bool) -> Step:
        async def do() -> None:
            (directory / name).touch()

        async def undo() -> None:
            (directory / name).unlink(missing_ok=True)

        return Step(name, do, undo, point)

    return [step("a", False), step("b", True), step("c", False)]


@pytest.mark.parametrize(
    ("kill", "status", "left"), [(0, RESTARTED, []), (1, RESTARTED, []), (2, "OK", ["a", "b", "c"])]
)
async def test_a_killed_daemon_ends_its_tasks_truthfully_at_the_next_start(tmp_path, kill, status, left):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        str(tmp_path),
        str(kill),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert await child.wait() == 9
    bench = Bench(tmp_path)
    bench.tasks.register("k", lambda args: steps_in(tmp_path / "things"))
    found = await bench.tasks.start()
    assert len(found) == 1
    (record,), _ = await bench.tasks.list(Filter())
    lines = await bench.lines(str(record.upid))
    await bench.tasks.close()
    assert record.status == status
    assert sorted(p.name for p in (tmp_path / "things").iterdir()) == left
    assert lines[0] == "begun"
    assert lines[-1] == ("TASK OK" if status == "OK" else f"TASK ERROR: {status}")
