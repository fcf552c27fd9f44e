"""What a handler gets: checked parameters, the caller's rights, the services of this node.

Made by `api/dispatch.py`, given to handlers in `api/*.py`. `services` is the object graph the daemon built; handlers call
verbs on it and never keep it.

What a handler may return: JSON values (booleans become 0/1 on the wire), `Encoded` (JSON made beforehand), `Picture`, and in
methods with `websocket=True` a `Console`. Two more things it may do:

*Say what version it shows, before doing the work* (lists that clients poll):

    call.not_modified(f"{store.revision}-{live.revision}")      # raises when the client has this one: 304, nothing is built

*Take a file* (methods with `upload=True`; the file part's own name comes as parameter `filename`). The handler opens a place
for the file, panal-web writes into that descriptor, and `receive` returns when the last byte is there. Whatever goes wrong
(the client leaves, the multipart is broken, a late field is wrong) comes out of `receive` as an error: remove what you made.

    place = await storage.begin_upload(...)                      # descriptor on the target storage
    try:
        size = await call.receive(place.fd)                      # call.params now holds the fields after the file, too
        return await storage.finish_upload(place, size, ...)
    except BaseException:
        await storage.abort_upload(place)
        raise

*Hand out a console* (methods with `websocket=True`): check the one-use ticket, connect, and return the descriptor:

    return Console(driver.serial(vmid, 0), terminal=f"{user}:{ticket}")    # xterm frames; "" = bytes as they are (VNC)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from panal.api.permission import Permission, Rights, denied
from panal.api.wire.values import Encoded, Picture

if TYPE_CHECKING:
    from panal.api.services import Services


__all__ = ["Call", "Console", "Encoded", "NotModified", "Picture"]


class NotModified(Exception):
    """The client has the version named by the argument (dispatch answers 304)."""


@dataclass(frozen=True, slots=True)
class Console:
    """A connected stream socket; dispatch owns the descriptor from here on and closes it.

    `terminal`: the line (`user:ticket`) that the client's first message must be; then the socket carries plain bytes and web
    translates xterm frames. Empty: bytes pass both ways untouched.
    """

    descriptor: int
    terminal: str = ""


@dataclass(slots=True)
class Call:
    """One request after authentication, validation and the declared permission check."""

    params: Mapping[str, Any]
    """checked and typed: int, float, bool, str; only what was sent"""
    rights: Rights
    services: Services
    client: str = ""
    """address of the caller, for audit and login delays"""
    ticket: str | None = None
    csrf: str | None = None
    request_id: str = ""
    """for logs: the same in panal-web's access log and here"""
    extras: dict[str, Any] = field(default_factory=dict)
    """extra top-level keys of a successful answer: `total`, `changes`"""
    if_none_match: str | None = None
    etag: str | None = None
    take: Callable[[int], Awaitable[int]] | None = None
    """behind `receive`; dispatch sets it"""

    def not_modified(self, etag: str) -> None:
        """Name the version this answer shows; raises NotModified when the client has it. Call it before the work."""
        self.etag = f'"{etag}"'
        known = (part.strip().removeprefix("W/") for part in (self.if_none_match or "").split(","))
        if self.etag in known:
            raise NotModified(self.etag)

    async def receive(self, descriptor: int) -> int:
        """Let panal-web write the uploaded file into `descriptor`; returns its size in bytes when it is complete.

        Raises Interrupted (the client left), BadInput (broken multipart, wrong late field). The descriptor stays the caller's.
        """
        if self.take is None:
            raise RuntimeError("receive() is for methods with upload=True")
        return await self.take(descriptor)

    def has(self, path: str, *privs: str, any_of: bool = False) -> bool:
        """Whether the caller has all (or any) of the privileges there."""
        have = self.rights.privileges(path)
        return (any if any_of else all)(p in have for p in privs)

    def require(self, path: str, *privs: str, any_of: bool = False) -> None:
        """Raise Forbidden unless `has`."""
        if not self.has(path, *privs, any_of=any_of):
            raise denied(path, *privs, any_of=any_of)

    def require_form(self, form: Permission, params: Mapping[str, Any] | None = None) -> None:
        """Check another permission form, with other parameters if given."""
        form.check(self.rights, self.params if params is None else params)
