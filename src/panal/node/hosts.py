"""The machine's /etc/hosts: shown and replaced as a whole."""

from __future__ import annotations

import asyncio
from typing import Final

from panal.core.errors import BadInput
from panal.node import files
from panal.node.context import NodeInfo

PATH: Final = "/etc/hosts"
MAX_BYTES: Final = 256 * 1024


async def read(info: NodeInfo) -> dict[str, str]:
    """Content and digest."""
    data = await asyncio.to_thread(files.read, info.path(PATH))
    return {"data": data.decode(errors="replace"), "digest": files.digest(data)}


async def write(info: NodeInfo, text: str, digest: str | None) -> None:
    """Replace it. Conflict when it is no longer what `digest` names."""
    data = text.replace("\r\n", "\n").encode()
    if len(data) > MAX_BYTES or b"\0" in data:
        raise BadInput("data", f"the file must be text of at most {MAX_BYTES} bytes")
    if data and not data.endswith(b"\n"):
        data += b"\n"

    def work() -> None:
        files.check_digest(files.read(info.path(PATH)), digest)
        files.replace(info.path(PATH), data)

    async with info.writing:
        await asyncio.to_thread(work)
