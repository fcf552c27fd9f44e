"""One QMP connection to one QEMU: commands with a time limit, events, descriptors.

Called by the rest of this folder. Wraps `qemu.qmp`, whose objects never leave this file. Invariants: every command has a
timeout, so that a hung QEMU (SIGSTOP, dead storage) blocks nobody but its own caller; a monitor serves one client (a second
one would wait for ever, recipe pitfall 5), which is why each guest has two; a lost connection is an event, never a stray
exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError

from panal.core.errors import Failed, Unavailable

COMMAND_S: Final = 5
# Lost connections and late answers are our business, not the library's: it would log each of them as an error.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

Event = Mapping[str, Any]


class CommandFailed(Failed):
    """QEMU refused a command. `kind` is QMP's error class."""

    def __init__(self, command: str, kind: str, text: str) -> None:
        super().__init__(f"QEMU refused {command}: {text}", command=command)
        self.kind = kind
        self.text = text


class Monitor:
    """A negotiated connection. `closed` is set when it is lost."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client
        self._pump: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self.closed = asyncio.Event()

    @classmethod
    async def connect(cls, path: Path, on_event: Callable[[Event], None], timeout_s: float = COMMAND_S) -> Monitor:
        """Connect and negotiate. Unavailable when QEMU does not answer in time or somebody else holds this monitor."""
        client = QMPClient(path.name)
        try:
            async with asyncio.timeout(timeout_s):
                await client.connect(str(path))
        except (ConnectError, QMPError, OSError, EOFError) as exc:
            raise Unavailable(f"QEMU does not speak on its monitor: {exc}") from exc
        except TimeoutError:
            raise Unavailable(f"QEMU did not answer on its monitor within {timeout_s:g} s") from None
        for name in ("_bh_tasks", "_reader_task", "_writer_task"):
            _silence(getattr(client, name, None))
        self = cls(client)
        self._pump = asyncio.create_task(self._events(on_event), name=f"qmp events {path}")
        return self

    @property
    def version(self) -> str:
        """QEMU's version: `7.2.22`."""
        greeting = self._client.greeting
        number: Any = greeting.QMP.version["qemu"] if greeting else {}
        return f"{number.get('major', 0)}.{number.get('minor', 0)}.{number.get('micro', 0)}"

    async def execute(self, command: str, timeout_s: float = COMMAND_S, /, **arguments: object) -> Any:
        """Run a command (underscores in argument names become hyphens). CommandFailed, Unavailable."""
        return await self.call(command, {k.replace("_", "-"): v for k, v in arguments.items()}, timeout_s)

    async def call(
        self, command: str, arguments: Mapping[str, object] | None = None, timeout_s: float = COMMAND_S
    ) -> Any:
        """The same with the arguments as they are."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._client.execute(command, dict(arguments) if arguments else None)
        except ExecuteError as exc:
            raise CommandFailed(command, exc.error_class, str(exc)) from None
        except TimeoutError:
            raise Unavailable(f"QEMU did not answer {command} within {timeout_s:g} s; it hangs") from None
        except (ExecInterruptedError, QMPError, OSError, EOFError) as exc:
            raise Unavailable(f"the connection to QEMU was lost during {command} ({exc})") from None

    async def call_with_fd(self, fd: int, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a command that takes a descriptor (`getfd`, `add-fd`): QEMU gets a copy. CommandFailed, Unavailable."""
        async with self._sending:  # the descriptor belongs to the command that follows it
            writer = self._client._writer
            if writer is None:
                raise Unavailable("the connection to QEMU was lost")
            # A copy of the socket, because event loops hide sendmsg of theirs; a blank between two messages means nothing.
            own = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
            try:
                own.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("@i", fd))])
            except OSError as exc:
                raise Unavailable(f"QEMU does not take a descriptor for {command} ({exc})") from None
            finally:
                own.close()
            return await self.call(command, arguments)

    async def close(self) -> None:
        """Let go; QEMU runs on."""
        self.closed.set()
        if self._pump is not None:
            self._pump.cancel()
        writer = self._client._writer
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await self._client.disconnect()
            return
        if writer is not None:  # a hung QEMU does not read: the library would wait for ever for its buffer to empty
            writer.transport.abort()

    async def _events(self, on_event: Callable[[Event], None]) -> None:
        watch = asyncio.create_task(self._lost())
        try:
            async for event in self._client.events:
                on_event(event)
        finally:
            watch.cancel()

    async def _lost(self) -> None:
        while self._client.runstate.name == "RUNNING":
            await self._client.runstate_changed()
        self.closed.set()


def _silence(task: asyncio.Future[Any] | None) -> None:
    """Fetch the exception of a library task, else asyncio complains that nobody did."""
    if task is not None:
        task.add_done_callback(lambda t: None if t.cancelled() else (t.exception(), None)[1])
