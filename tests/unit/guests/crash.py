"""Power cuts between any two steps: a daemon that stops dead at one point of one operation, and what it was asked to do.

Used by the walk in this folder (the cut is an exception, and nothing works after it) and by
`tests/guests/test_crash_process.py` (the cut is `os._exit`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from panal.core.errors import Conflict, NotFound
from panal.guests import operations
from panal.guests.clone import CloneRequest, clone
from panal.guests.config.wish import Wish
from panal.guests.configure import configure_task
from panal.guests.context import Guests
from panal.guests.create import create
from panal.guests.delete import delete
from panal.guests.delsnapshot import delsnapshot
from panal.guests.rollback import rollback
from panal.guests.snapshot import snapshot
from panal.guests.start import start
from panal.guests.template import template
from panal.tasks.steps import Args, Step
from tests.unit.guests.world import USER, Node

GUEST = {"name": "web", "scsi0": "local:1,format=qcow2", "scsi1": "local:1,format=qcow2", "net0": "virtio"}


class PowerCut(BaseException):
    """The machine is off: not an Exception, so that nothing handles it."""


@dataclass
class Cut:
    """Counts the moments between steps of `kind` and ends everything at number `at`."""

    kind: str
    at: int
    end: Callable[[], None] | None = None
    seen: int = 0
    dead: bool = False

    def moment(self) -> None:
        """Before or after a step."""
        if self.dead:
            raise PowerCut
        self.seen += 1
        if self.seen == self.at:
            self.dead = True
            if self.end is not None:
                self.end()
            raise PowerCut

    def install(self, guests: Guests) -> None:
        """Watch over the operation on this node."""
        builder = operations.BUILDERS[self.kind]

        def build(args: Args) -> Sequence[Step]:
            return [self._watched(step) for step in builder(guests, args)]

        guests.tasks.register(self.kind, build)
        close = guests.tasks.journal.close

        async def closing(upid: str) -> None:
            self.moment()
            await close(upid)

        guests.tasks.journal.close = closing  # type: ignore[method-assign]

    def _watched(self, step: Step) -> Step:
        async def do() -> None:
            self.moment()
            await step.do()
            self.moment()

        async def undo() -> None:
            if self.dead:
                raise PowerCut
            if step.undo is not None:
                await step.undo()

        return replace(step, do=do, undo=undo)


@dataclass(frozen=True)
class Scenario:
    """`prepare` a node, then `act` (a UPID). `again` are errors that a second try may get because the first one got through."""

    kind: str
    prepare: Callable[[Node], Awaitable[None]]
    act: Callable[[Node], Awaitable[str]]
    again: tuple[type[Exception], ...] = ()


async def nothing(node: Node) -> None:
    """An empty node."""


async def one(node: Node) -> None:
    """VM 100."""
    await node.ok(await create(node.guests, 100, GUEST, USER))


async def running(node: Node) -> None:
    """VM 100, running."""
    await one(node)
    await node.ok(await start(node.guests, 100, USER))


async def snapped(node: Node) -> None:
    """VM 100 with two snapshots, one of them with its memory; running."""
    await running(node)
    await node.ok(await snapshot(node.guests, 100, "s1", USER, vmstate=True))
    await node.ok(await snapshot(node.guests, 100, "s2", USER))


async def snapped_off(node: Node) -> None:
    """VM 100, off, with a snapshot."""
    await one(node)
    await node.ok(await snapshot(node.guests, 100, "s1", USER))


WISH = Wish(set={"cores": "2", "scsi2": "local:1"})

SCENARIOS = {
    "create": Scenario("create", nothing, lambda n: create(n.guests, 100, GUEST, USER), (Conflict,)),
    "clone": Scenario("clone", one, lambda n: clone(n.guests, 100, CloneRequest(101), USER), (Conflict,)),
    "clone-running": Scenario("clone", running, lambda n: clone(n.guests, 100, CloneRequest(101), USER), (Conflict,)),
    "clone-snapshot-of-running": Scenario(
        "clone", snapped, lambda n: clone(n.guests, 100, CloneRequest(101, snapshot="s1"), USER), (Conflict,)
    ),
    "snapshot": Scenario("snapshot", one, lambda n: snapshot(n.guests, 100, "xx", USER), (Conflict,)),
    "snapshot-ram": Scenario(
        "snapshot", running, lambda n: snapshot(n.guests, 100, "xx", USER, vmstate=True), (Conflict,)
    ),
    "rollback": Scenario("rollback", snapped_off, lambda n: rollback(n.guests, 100, "s1", USER)),
    "rollback-ram": Scenario("rollback", snapped, lambda n: rollback(n.guests, 100, "s1", USER)),
    "delsnapshot": Scenario("delsnapshot", snapped, lambda n: delsnapshot(n.guests, 100, "s1", USER), (NotFound,)),
    "configure": Scenario("configure", one, lambda n: configure_task(n.guests, 100, WISH, USER, lambda needs: None)),
    "delete": Scenario("delete", snapped_off, lambda n: delete(n.guests, 100, USER), (NotFound,)),
    "template": Scenario("template", one, lambda n: template(n.guests, 100, USER), (Conflict,)),
}
