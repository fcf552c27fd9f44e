"""Never two runners (invariant 1): three nodes that take, release, crash, restart and reboot in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from panal.cluster.incarnation import Incarnation
from panal.guests.claims import Claim, decide_release, decide_take, decide_takeover
from tests.soaking import examples

NODES = ("a", "b", "c")


@dataclass
class Machine:
    """A node: its processes, and what its daemon is in the middle of (None: nothing)."""

    me: Incarnation
    boots: int = 1
    up: bool = True
    processes: list[int] = field(default_factory=list)
    """epochs of the guest's processes: must never be more than one over all machines"""
    read: Claim | None = None
    taken: int | None = None


class Claims(RuleBasedStateMachine):
    """One guest. Every read and write of the store is a step of its own; a write fails when the record changed since.

    Planted faults, each seen red: `decide_take` that also takes another node's claim; `decide_takeover` of any node's claim;
    `decide_release` that ignores who holds it, or the epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.claim = Claim(revision=0)
        self.revision = 0
        self.nodes = {name: Machine(Incarnation(name, "1")) for name in NODES}

    def write(self, seen: Claim | None, new: Claim | None) -> bool:
        """Compare and set."""
        if seen is None or new is None or seen.revision != self.revision:
            return False
        self.revision += 1
        self.claim = Claim(new.node, new.incarnation, new.epoch, self.revision)
        return True

    @rule(name=st.sampled_from(NODES))
    def read(self, name: str) -> None:
        """A start begins: it looks at the claim, and at its own processes."""
        node = self.nodes[name]
        if node.up and not node.processes and node.taken is None:
            node.read = self.claim

    @rule(name=st.sampled_from(NODES))
    def take(self, name: str) -> None:
        """It commits the claim, if nobody changed it."""
        node = self.nodes[name]
        if node.up and node.read is not None:
            new = decide_take(node.read, node.me)
            if self.write(node.read, new) and new is not None:
                node.taken = new.epoch
            node.read = None

    @rule(name=st.sampled_from(NODES))
    def run(self, name: str) -> None:
        """The process begins."""
        node = self.nodes[name]
        if node.up and node.taken is not None:
            node.processes.append(node.taken)
            node.taken = None

    @rule(name=st.sampled_from(NODES))
    def end(self, name: str) -> None:
        """The process ends; the daemon has not heard of it."""
        self.nodes[name].processes.clear()

    @rule(name=st.sampled_from(NODES))
    def reap(self, name: str) -> None:
        """In the guest's turn, with no process left, the claim is let go."""
        node = self.nodes[name]
        if node.up and not node.processes and node.taken is None and node.read is None:
            self.write(self.claim, decide_release(self.claim, node.me, self.claim.epoch))

    @rule(name=st.sampled_from(NODES), epoch=st.integers(1, 6))
    def late_release(self, name: str, epoch: int) -> None:
        """A release of an earlier run that comes late: it knows its own epoch, which has no process any more."""
        node = self.nodes[name]
        busy = epoch in node.processes or epoch == node.taken
        if node.up and not busy:
            self.write(self.claim, decide_release(self.claim, node.me, epoch))

    @rule(name=st.sampled_from(NODES))
    def daemon_dies(self, name: str) -> None:
        """The processes live on; what was under way is forgotten."""
        node = self.nodes[name]
        node.up, node.read, node.taken = False, None, None

    @rule(name=st.sampled_from(NODES))
    def power_cut(self, name: str) -> None:
        """Everything is gone; the next boot is another incarnation."""
        node = self.nodes[name]
        node.up, node.read, node.taken = False, None, None
        node.processes.clear()
        node.boots += 1
        node.me = Incarnation(name, str(node.boots))

    @rule(name=st.sampled_from(NODES))
    @precondition(lambda self: any(not n.up for n in self.nodes.values()))
    def daemon_starts(self, name: str) -> None:
        """boot.settle: kill what is not held, let go of what does not run, then serve."""
        node = self.nodes[name]
        if node.up:
            return
        node.processes = [e for e in node.processes if self.claim.held_by(node.me, e)]
        if not node.processes and self.claim.node == name:
            if self.claim.held_by(node.me):
                self.write(self.claim, decide_release(self.claim, node.me, self.claim.epoch))
            else:
                self.write(self.claim, decide_takeover(self.claim, node.me))
        node.up = True

    @rule(name=st.sampled_from(NODES))
    def take_over_others(self, name: str) -> None:
        """A boot that looks at every claim must leave those of others alone."""
        node = self.nodes[name]
        if node.up and not node.processes and node.taken is None:
            self.write(self.claim, decide_takeover(self.claim, node.me))

    @invariant()
    def one_runner(self) -> None:
        """Over all machines at most one process, and the store names its incarnation and epoch."""
        running = [(node.me, epoch) for node in self.nodes.values() for epoch in node.processes]
        about_to = [(node.me, node.taken) for node in self.nodes.values() if node.taken is not None]
        assert len(running + about_to) <= 1
        for me, epoch in running + about_to:
            assert self.claim.held_by(me, epoch)


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
