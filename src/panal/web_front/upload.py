"""Uploads: a multipart body streamed into a descriptor that paneld opened on the target storage.

    fields before the file  → Request(kind="upload")   paneld authenticates, authorises, opens the place
    the file's bytes        → into the descriptor
    fields after it         → Part("finish")           paneld checks the rest and answers

Nothing is kept in memory but one chunk and the fields (bounded). Whatever goes wrong is told to paneld, which removes what
it made. Invariant: web never sees a path and never opens a file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from panal.api.wire import model
from panal.core.frames import BadFrame
from panal.web_front.backend import Backend, answer, ask
from panal.web_front.request import Head, Refused

MAX_FIELDS_BYTES: Final = 64 * 1024
MAX_PARTS: Final = 64
SILENCE_S: Final = 60.0
DRAIN_S: Final = 10.0


class Gone(Exception):
    """The client left or fell silent."""


class Multipart:
    """Fields and the bytes of one file, as they come. Raises Refused for a body that is none."""

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= 200:
            raise Refused(400, "multipart body without a boundary")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.in_file = False
        self.file_ended = False
        self.ended = False
        self.chunks: list[bytes] = []
        self._name = ""
        self._value = bytearray()
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._parts = self._size = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part, "on_header_field": self._header_name, "on_header_value": self._header_value,
                "on_header_end": self._header_end, "on_headers_finished": self._headers, "on_part_data": self._data,
                "on_part_end": self._part_end, "on_end": self._end,
            },
        )  # fmt: skip

    def feed(self, data: bytes) -> list[bytes]:
        """Parse on; returns the pieces of the file in `data`."""
        self.chunks = []
        try:
            self._parser.write(data)
        except (FormParserError, UnicodeDecodeError) as exc:
            raise Refused(400, f"broken multipart body: {exc}"[:200]) from None
        return self.chunks

    def _part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Refused(400, f"more than {MAX_PARTS} parts")
        self._name, self._disposition = "", b""
        self._value.clear()

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size > MAX_FIELDS_BYTES:
            raise Refused(400, f"the fields beside the file are longer than {MAX_FIELDS_BYTES} bytes")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow(end - start)
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        if bytes(self._header[0]).lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header[0].clear()
        self._header[1].clear()

    def _headers(self) -> None:
        kind, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "strict")
        if kind != b"form-data" or not self._name:
            raise Refused(400, "a part of the multipart body has no name")
        if b"filename" in options:
            if self.filename is not None:
                raise Refused(400, "more than one file in the upload")
            self.filename = options[b"filename"].decode("utf-8", "strict")
            self.in_file = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self.in_file:
            self.chunks.append(data[start:end])
        else:
            self._grow(end - start)
            self._value += data[start:end]

    def _part_end(self) -> None:
        if self.in_file:
            self.in_file, self.file_ended = False, True
            return
        if self._name in self.fields:
            raise Refused(400, f"field '{self._name[:60]}' stands twice")
        self.fields[self._name] = self._value.decode("utf-8", "strict")

    def _end(self) -> None:
        self.ended = True


async def run(backend: Backend, request: model.Request, head: Head, receive: Receive) -> tuple[model.Answer, bytes]:
    """One upload from its first byte to its answer."""
    if "transfer-encoding" in head.headers:
        raise Refused(501, "chunked transfer encoding not supported")
    if not head.content_length:
        raise Refused(411, "an upload needs Content-Length")
    form = Multipart(head.headers["content-type"])
    body = _body(receive)
    first: list[bytes] = []
    async for data in _or_refuse(body):
        first = form.feed(data)
        if form.filename is not None:
            break
    if form.filename is None:
        raise Refused(400, "Parameter verification failed.", {"filename": "there is no file in the upload"})
    sent: dict[str, Any] = {**form.fields, "filename": form.filename, **head.query}
    async with backend.channel() as channel:
        await ask(channel, request, model.encode(sent))
        begun, data, descriptors = await answer(channel)
        if begun.step != "receive" or len(descriptors) != 1:
            await _drain(body)
            return begun, data
        before = set(form.fields)
        part = await _stream(form, body, first, descriptors[0])
        late = {k: v for k, v in form.fields.items() if k not in before}
        await channel.send(model.encode(part), model.encode(late) if part.kind == "finish" else b"")
        final, data, _ = await answer(channel, timeout_s=None)
    if part.kind == "broken":
        await _drain(body)
    return final, data


async def _stream(form: Multipart, body: AsyncIterator[bytes], pieces: list[bytes], descriptor: int) -> model.Part:
    """Write the file's bytes; says how it ended. Closes the descriptor."""
    size = 0
    try:
        while True:
            if pieces:
                size += await asyncio.to_thread(_write, descriptor, pieces)
            if form.ended:
                return model.Part("finish", size)
            pieces = form.feed(await anext(body))
    except StopAsyncIteration:
        return model.Part("broken", size, "the multipart body ends too early")
    except Refused as exc:
        return model.Part("broken", size, exc.message)
    except Gone as exc:
        return model.Part("gone", size, str(exc))
    except OSError as exc:
        return model.Part("failed", size, f"cannot write the file: {exc.strerror}")
    finally:
        os.close(descriptor)


def _write(descriptor: int, pieces: list[bytes]) -> int:
    total = 0
    for piece in pieces:
        view = memoryview(piece)
        while view:
            written = os.write(descriptor, view)
            view = view[written:]
            total += written
    return total


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                message = await receive()
        except TimeoutError:
            raise Gone(f"the client sent nothing for {SILENCE_S:.0f} s") from None
        if message["type"] == "http.disconnect":
            raise Gone("the client left in the middle of the upload")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


async def _or_refuse(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for data in body:
            yield data
    except Gone as exc:
        raise Refused(400, str(exc)) from None


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Let a client that is refused finish, or it never reads why; not for long."""
    try:
        async with asyncio.timeout(DRAIN_S):
            async for _ in body:
                pass
    except (TimeoutError, Gone, BadFrame):
        return
