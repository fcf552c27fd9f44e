"""Runs a script of ours on input of somebody else's in a child that can do nothing but read the descriptors it was given.

Called for image headers (storage/images.py) and downloads (storage/download.py). The child (host/jailed.py) has another uid
when we are root, no network (unless asked), limits on CPU time, memory and file size, no_new_privs and a seccomp filter: a
hole in a parser yields the content of the file that was being parsed, and nothing else.

Invariant: whatever the child does, the caller gets an answer or one of our errors, within `timeout_s`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from panal.core.errors import Failed, ProgramFailed
from panal.host.run import run

NOBODY: Final = 65534
_JAILED: Final = Path(__file__).with_name("jailed.py")
_MEMORY: Final = 512 * 1024 * 1024


async def call(
    script: Path,
    args: Any,
    *,
    fds: Sequence[int] = (),
    timeout_s: float,
    cpu_s: int = 10,
    file_size: int = 0,
    network: bool = False,
    on_output: Callable[[bytes], None] | None = None,
) -> Any:
    """What `main(args)` of the script returned (JSON values both ways). `fds` keep their numbers in the child.

    `file_size` is how many bytes it may write into a file; `network` lets it open connections (and packages and the machine's
    certificates). Raises Failed when it ends badly: what it says of itself is not to be trusted and is left out.
    """
    limits: Mapping[str, int] = {
        "cpu": cpu_s, "fsize": file_size, "core": 0, "nofile": 256, **({} if network else {"as": _MEMORY}),
    }  # fmt: skip
    order = {"uid": NOBODY if os.geteuid() == 0 else None, "network": network, "limits": limits, "args": args}
    flags = ["-I"] if network else ["-I", "-S"]
    try:
        result = await run(
            [sys.executable, *flags, str(_JAILED), str(script)],
            stdin=msgspec.json.encode(order), pass_fds=fds, timeout_s=timeout_s, on_output=on_output,
        )  # fmt: skip
    except ProgramFailed as exc:
        raise Failed(f"reading the file failed (status {exc.status}); it is broken or was made to do harm") from exc
    if on_output is not None:
        return None
    try:
        return msgspec.json.decode(result.stdout)
    except msgspec.DecodeError as exc:
        raise Failed("reading the file gave no usable answer; it is broken or was made to do harm") from exc
