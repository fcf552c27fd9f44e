"""The cloud-init password is kept as a hash from the moment it arrives: the store, its exports and snapshots never hold it.

Called by configure and create before anything is planned. The hash is libcrypt's SHA-512 (`$6$…`), which is what a guest's
/etc/shadow takes; a value that is such a hash already is kept as it is.
"""

from __future__ import annotations

import asyncio
import ctypes
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from panal.core.errors import BadInput, Failed

KEY: Final = "cipassword"
_HASH: Final = re.compile(r"\$(?:[156y]|2[aby]|gy|7)\$[./0-9A-Za-z$=,+-]{8,}")
_ALPHABET: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SALT_CHARS: Final = 16
_DATA_BYTES: Final = 1 << 17
"""room for libcrypt's `struct crypt_data` (32 KiB)"""


async def without_password(texts: Mapping[str, str], random: Callable[[int], bytes]) -> dict[str, str]:
    """The texts with the password hashed. BadInput naming the key."""
    clear = texts.get(KEY)
    if clear is None or _HASH.fullmatch(clear):
        return dict(texts)
    salt = "".join(_ALPHABET[b & 63] for b in random(_SALT_CHARS))
    return {**texts, KEY: await asyncio.to_thread(_hash, clear, f"$6${salt}$")}


@cache
def _libcrypt() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libcrypt.so.1")
    except OSError:
        raise Failed("libcrypt.so.1 is missing; install the package libcrypt1") from None
    library.crypt_r.restype = ctypes.c_char_p
    library.crypt_r.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
    return library


def _hash(clear: str, setting: str) -> str:
    found = _libcrypt().crypt_r(clear.encode(), setting.encode(), ctypes.create_string_buffer(_DATA_BYTES))
    if found is None or not found.startswith(setting.encode()):
        raise BadInput(KEY, f"{KEY} cannot be hashed; take another password")
    return str(found.decode())
