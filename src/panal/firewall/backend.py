"""Puts the table into the kernel, and says what this kernel cannot do. One backend a node, made by `daemon/`.

`NftBackend` runs `nft`; `FakeBackend` keeps the table for the fake hypervisor and for tests. Invariant: `load` is all or
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from panal.core.errors import Failed, PanalError, ProgramFailed
from panal.host.run import Result, run

Json = dict[str, Any]
TIMEOUT_S: Final = 30.0
_NFT: Final = ("nft", "-j", "-f", "-")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the kernel can do. `missing`: why guests cannot be filtered here, None when they can."""

    missing: str | None = None
    reject: bool = True


class Backend(Protocol):
    """Where the table goes."""

    async def abilities(self) -> Abilities:
        """What can be done here now."""

    async def load(self, commands: Sequence[Json]) -> None:
        """Apply all commands in one transaction. Failed: nothing was changed."""


@dataclass(slots=True)
class FakeBackend:
    """Keeps what it was given. `refuse` and `able` play a kernel that cannot."""

    able: Abilities = field(default_factory=Abilities)
    refuse: str | None = None
    loads: int = 0
    commands: list[Json] = field(default_factory=list)

    async def abilities(self) -> Abilities:
        """As told."""
        return self.able

    async def load(self, commands: Sequence[Json]) -> None:
        """Keep them, or fail as told."""
        if self.refuse is not None:
            raise Failed(self.refuse)
        self.commands = list(commands)
        self.loads += 1


class Runner(Protocol):
    """`host.run.run`."""

    def __call__(
        self, argv: Sequence[str], *, timeout_s: float, stdin: bytes | None = None, check: bool = True
    ) -> Awaitable[Result]:
        """Run a program."""


class NftBackend:
    """The kernel's nftables."""

    def __init__(self, runner: Runner = run) -> None:
        self._run = runner
        self._able: Abilities | None = None

    async def abilities(self) -> Abilities:
        """Asked of the kernel once it can; while it cannot, every time: a module may be loaded meanwhile."""
        if self._able is None or self._able.missing is not None:
            self._able = await self._probe()
        return self._able

    async def load(self, commands: Sequence[Json]) -> None:
        """Through nft."""
        await self._nft(commands)

    async def _probe(self) -> Abilities:
        states: Json = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}}
        tcp: Json = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": 6}}
        for expressions, missing in (
            ([tcp, {"accept": None}], "tables for bridges (is nftables installed, and the daemon root?)"),
            (
                [states, {"accept": None}],
                "connection tracking on bridges (try `modprobe nf_conntrack_bridge`)",
            ),
        ):
            problem = await self._try(expressions)
            if problem is not None:
                return Abilities(f"this node's kernel has no {missing}: {problem}", False)
        reject = [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]
        return Abilities(None, await self._try(reject) is None)

    async def _try(self, expressions: list[Json]) -> str | None:
        """Make a table of one rule and remove it again, in one transaction; None when the kernel takes it."""
        name: Json = {"family": "bridge", "table": "panal-probe"}
        table: Json = {"table": {"family": "bridge", "name": "panal-probe"}}
        chain = {**name, "name": "c", "type": "filter", "hook": "prerouting", "prio": 0, "policy": "accept"}
        rule = {**name, "chain": "c", "expr": expressions}
        commands: list[Json] = [{"add": table}, {"add": {"chain": chain}}, {"add": {"rule": rule}}, {"delete": table}]
        try:
            await self._nft(commands)
        except PanalError as exc:
            return str(exc)
        return None

    async def _nft(self, commands: Sequence[Json]) -> None:
        text = json.dumps({"nftables": list(commands)}).encode()
        try:
            await self._run(_NFT, timeout_s=TIMEOUT_S, stdin=text)
        except ProgramFailed as exc:
            # nft repeats its whole input; the reason stands in lines that begin with a place or an error
            lines = [line.strip() for line in exc.stderr.splitlines() if "rror" in line]
            raise Failed(f"nft refused: {(lines or [str(exc)])[0][:200]}") from exc
